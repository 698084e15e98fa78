"""The errors that NVIDIA's driver tells: its events of type XID, taken off as they come, without waiting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from node_agent.telemetry.guard import Guard, Hung

XID_EVENT = 0x8
WHOLE_GPU = 0xFFFFFFFF  # in place of an instance's number
MOST_AT_ONCE = 64
TIMEOUT_S = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Told:
    """An error of a GPU; `instance` is the number of the one that it is of, None where it is of all of them."""

    xid: int
    instance: int | None = None


class Xids:
    """Takes events of GPUs, in a guarded thread; a driver that has none, or hangs, tells nothing."""

    def __init__(self, library: Any) -> None:
        self._nvml = library
        self._guard = Guard("nvml-events")
        self._set: Any = None

    def watch(self, handles: Mapping[str, Any]) -> None:
        """Begins to watch GPUs, by id."""
        try:
            self._guard.call(lambda: self._register(handles.items()), timeout_s=TIMEOUT_S)
        except (Hung, AttributeError, self._nvml.NVMLError) as error:
            log.info("xids_not_watched", reason=str(error))

    def take(self) -> dict[str, tuple[Told, ...]]:
        """What has come since the last time, by the GPU's id."""
        if self._set is None:
            return {}
        try:
            return self._guard.call(self._drain, timeout_s=TIMEOUT_S)
        except (Hung, self._nvml.NVMLError) as error:
            log.debug("xids_not_read", reason=str(error))
            return {}

    def close(self) -> None:
        """Ends the thread."""
        self._guard.close()

    def _register(self, handles: Iterable[tuple[str, Any]]) -> None:
        events = self._nvml.nvmlEventSetCreate()
        watched = 0
        for device_id, handle in handles:
            try:
                self._nvml.nvmlDeviceRegisterEvents(handle, XID_EVENT, events)
                watched += 1
            except self._nvml.NVMLError as error:
                log.info("xids_not_watched", device_id=device_id, reason=str(error))
        if watched:
            self._set = events

    def _drain(self) -> dict[str, tuple[Told, ...]]:
        found: dict[str, tuple[Told, ...]] = {}
        for _ in range(MOST_AT_ONCE):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
            except self._nvml.NVMLError:  # none is there: the library says so by a timeout
                break
            uuid = self._nvml.nvmlDeviceGetUUID(event.device)
            device_id = uuid.decode("utf-8", "replace") if isinstance(uuid, bytes) else uuid
            number = int(getattr(event, "gpuInstanceId", WHOLE_GPU))
            told = Told(int(event.eventData), None if number == WHOLE_GPU else number)
            found[device_id] = (*found.get(device_id, ()), told)
        return found
