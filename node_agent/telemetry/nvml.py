"""NVIDIA's GPUs, through NVML.

That there is no driver, no GPU, or one that has fallen off the bus is an ordinary state here. The
driver's calls can hang, so each GPU is read in a guarded thread of its own; a hung call is a
fault of that GPU. One that is partitioned (MIG) stands for its instances, whose number may change at any
time: what is wrong with it is wrong with all of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pynvml
import structlog

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.guard import Guard, Hung, Pending
from node_agent.telemetry.instances import Instance, found, of_instance, text
from node_agent.telemetry.models import short_type
from node_agent.telemetry.nvml_reading import MIG_ENABLED, Ask
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.xids import Told, Xids

START_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 3.0
MAX_DEVICES = 64
HUNG = "NOT_ANSWERING"
NO_INSTANCES = "NO_INSTANCES"

_log = structlog.get_logger()


class NoDriver(Exception):
    """NVML cannot be used on this machine; says why."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a GPU says at one time; `instances` is None where it is not partitioned, or could not say."""

    reading: Reading
    instances: list[Instance] | None = None


class _Gpu:
    """A GPU with its own thread, and the instances that it had when it was asked last."""

    def __init__(self, library: Any, device: DetectedDevice, handle: Any) -> None:
        self.device = device
        self._nvml = library
        self._handle = handle
        self._guard = Guard(f"nvml-{device.device_id}")
        self._instances: list[Instance] | None = None

    def look(self) -> None:
        """Finds its instances for the first time. NVMLError."""
        try:
            mode = self._nvml.nvmlDeviceGetMigMode(self._handle)[0]
        except (self._nvml.NVMLError, AttributeError):  # it knows of no instances
            return
        if mode == MIG_ENABLED:
            self._instances = []
            self._instances = found(self._nvml, self.device, self._handle)

    def devices(self) -> list[DetectedDevice]:
        """What it offers: itself, or its instances; itself as not usable where it has none."""
        if self._instances is None:
            return [self.device]
        if not self._instances:
            return [replace(self.device, healthy=False)]
        return [one.device for one in self._instances]

    def begin(self) -> Pending[_Answer] | Hung:
        """Begins to ask it."""
        try:
            return self._guard.begin(self._ask)
        except Hung as fault:
            return fault

    def finish(self, pending: Pending[_Answer] | Hung, deadline_s: float) -> dict[str, Reading]:
        """What it measures, by device; on the monotonic clock."""
        try:
            if isinstance(pending, Hung):
                raise pending
            answer = pending.result(deadline_s - time.monotonic())
        except Hung as fault:
            answer = _Answer(Reading(fault=str(fault), fault_code=HUNG))
        if not answer.reading.fault:
            self._instances = answer.instances
        if self._instances is None:
            return {self.device.device_id: answer.reading}
        return {
            one.device.device_id: of_instance(one.reading, answer.reading)
            for one in self._instances
        } or {self.device.device_id: _without(answer.reading)}

    def blamed(self, told: Told) -> list[str]:
        """The devices that an error of the driver is of: those of its instance, else all."""
        offered = self.devices()
        own = [
            one.device_id for one in offered if one.is_instance and one.instance == told.instance
        ]
        return own or [one.device_id for one in offered]

    def close(self) -> None:
        """Ends its thread."""
        self._guard.close()

    def _ask(self) -> _Answer:
        reading = Ask(self._nvml, self._handle)()
        if reading.fault or not reading.mig_enabled:
            return _Answer(reading)
        try:
            return _Answer(reading, found(self._nvml, self.device, self._handle))
        except self._nvml.NVMLError as error:
            return _Answer(replace(reading, fault=str(error), fault_code="UNREADABLE"))


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
        self._gpus: dict[str, _Gpu] = {}
        try:
            self._found = self._guard.call(self._start, timeout_s=start_timeout_s)
        except (library.NVMLError, Hung) as error:
            self._guard.close()
            raise NoDriver(str(error)) from error
        self._xids = Xids(library)
        self._xids.watch(self._handles)

    def devices(self) -> list[DetectedDevice]:
        """The GPUs found at the start, or the instances that they have by now; one that could not be asked
        has no healthy state."""
        return [
            device
            for gpu in self._found
            for device in (
                self._gpus[gpu.device_id].devices() if gpu.device_id in self._gpus else [gpu]
            )
        ]

    def read(self) -> Mapping[str, Reading]:
        """A reading of every device, all GPUs at once; takes `read_timeout_s` at most."""
        deadline_s = time.monotonic() + self._read_timeout_s
        begun = [(gpu, gpu.begin()) for gpu in self._gpus.values()]
        lost = Reading(fault="not found", fault_code="DEVICE_LOST")
        readings = {d.device_id: lost for d in self._found if d.device_id not in self._gpus}
        for gpu, pending in begun:
            readings |= gpu.finish(pending, deadline_s)
        for gpu_id, errors in self._xids.take().items():
            for told in errors if gpu_id in self._gpus else ():
                for device_id in self._gpus[gpu_id].blamed(told):
                    reading = readings[device_id]
                    readings[device_id] = replace(reading, xids=(*reading.xids, told.xid))
        return readings

    def close(self) -> None:
        """Ends the threads; NVML itself is left to the end of the process, where it cannot hang."""
        self._guard.close()
        for gpu in self._gpus.values():
            gpu.close()
        self._xids.close()

    def _start(self) -> list[DetectedDevice]:
        self._nvml.nvmlInit()
        count = min(self._nvml.nvmlDeviceGetCount(), MAX_DEVICES)
        return [self._detect(index) for index in range(count)]

    def _detect(self, index: int) -> DetectedDevice:
        gpu = DetectedDevice(f"gpu-{index}-lost", index, "UNKNOWN", "", 0, healthy=False)
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            gpu = replace(gpu, device_id=text(self._nvml.nvmlDeviceGetUUID(handle)))
            self._handles[gpu.device_id] = handle
            known = self._gpus[gpu.device_id] = _Gpu(self._nvml, gpu, handle)
            model = text(self._nvml.nvmlDeviceGetName(handle))
            known.device = gpu = replace(gpu, model=model, type=short_type(model))
            memory_bytes = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).total)
            known.device = gpu = replace(gpu, memory_bytes=memory_bytes, healthy=True)
            known.look()
        except self._nvml.NVMLError as error:
            _log.warning("gpu_unusable", index=index, device_id=gpu.device_id, reason=str(error))
        return gpu


def _without(reading: Reading) -> Reading:
    """The reading of a GPU that is partitioned and has no instance yet: nothing can run on it."""
    if reading.fault:
        return reading
    why = "it is partitioned (MIG), and has no instances"
    return replace(reading, fault=why, fault_code=NO_INSTANCES)
