"""NVIDIA's GPUs, through NVML.

That there is no driver, no GPU, or one that has fallen off the bus is an ordinary state here. The
driver's calls can hang, so each device is read in a guarded thread of its own; a hung call is a
fault of that device.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pynvml
import structlog

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.guard import Guard, Hung, Pending
from node_agent.telemetry.models import short_type
from node_agent.telemetry.nvml_reading import Ask
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.xids import Xids

START_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 3.0
MAX_DEVICES = 64
HUNG = "NOT_ANSWERING"

_log = structlog.get_logger()


class NoDriver(Exception):
    """NVML cannot be used on this machine; says why."""


class NvmlProbe:
    """Reads all GPUs that NVML knows; `library` is pynvml or what looks like it.

    Raises:
        NoDriver: there is no driver, it does not fit, or it does not answer.
    """

    def __init__(
        self,
        library: Any = pynvml,
        *,
        start_timeout_s: float = START_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._nvml = library
        self._read_timeout_s = read_timeout_s
        self._guard = Guard("nvml")
        self._handles: dict[str, Any] = {}
        try:
            self._devices = self._guard.call(self._start, timeout_s=start_timeout_s)
        except (library.NVMLError, Hung) as error:
            self._guard.close()
            raise NoDriver(str(error)) from error
        self._guards = {device_id: Guard(f"nvml-{device_id}") for device_id in self._handles}
        self._xids = Xids(library)
        self._xids.watch(self._handles)

    def devices(self) -> list[DetectedDevice]:
        """The GPUs found at the start; one that could not be asked has no healthy state."""
        return list(self._devices)

    def read(self) -> Mapping[str, Reading]:
        """A reading of every GPU, all at once; takes `read_timeout_s` at most."""
        deadline_s = time.monotonic() + self._read_timeout_s
        begun: dict[str, Pending[Reading] | Hung] = {}
        for device_id, handle in self._handles.items():
            try:
                begun[device_id] = self._guards[device_id].begin(Ask(self._nvml, handle))
            except Hung as fault:
                begun[device_id] = fault
        lost = Reading(fault="not found", fault_code="DEVICE_LOST")
        readings = {d.device_id: lost for d in self._devices}
        for device_id, pending in begun.items():
            readings[device_id] = _finish(pending, deadline_s)
        for device_id, xids in self._xids.take().items():
            if device_id in readings:
                readings[device_id] = replace(readings[device_id], xids=xids)
        return readings

    def close(self) -> None:
        """Ends the threads; NVML itself is left to the end of the process, where it cannot hang."""
        for guard in (self._guard, *self._guards.values()):
            guard.close()
        self._xids.close()

    def _start(self) -> list[DetectedDevice]:
        self._nvml.nvmlInit()
        count = min(self._nvml.nvmlDeviceGetCount(), MAX_DEVICES)
        return [self._detect(index) for index in range(count)]

    def _detect(self, index: int) -> DetectedDevice:
        lost = DetectedDevice(f"gpu-{index}-lost", index, "UNKNOWN", "", 0, healthy=False)
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            lost = replace(lost, device_id=_text(self._nvml.nvmlDeviceGetUUID(handle)))
            self._handles[lost.device_id] = handle
            model = _text(self._nvml.nvmlDeviceGetName(handle))
            lost = replace(lost, model=model, type=short_type(model))
            memory_bytes = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total)
        except self._nvml.NVMLError as error:
            _log.warning("gpu_unusable", index=index, device_id=lost.device_id, reason=str(error))
            return lost
        return replace(lost, memory_bytes=memory_bytes, healthy=True)


def _finish(pending: Pending[Reading] | Hung, deadline_s: float) -> Reading:
    if isinstance(pending, Hung):
        return Reading(fault=str(pending), fault_code=HUNG)
    try:
        return pending.result(deadline_s - time.monotonic())
    except Hung as fault:
        return Reading(fault=str(fault), fault_code=HUNG)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
