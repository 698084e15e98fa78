"""A stand-in for the module `pynvml`: the same GPUs as fake_nvml.c has, without a compiler."""

from __future__ import annotations

import threading
from types import SimpleNamespace


class StandIn:
    """Looks like pynvml to the probe; GPU 1 can be lost, or hang while `hang` is set."""

    NVML_TEMPERATURE_GPU = 0
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"error {value}")
            self.value = value

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.init_error = 0
        self.lost = False
        self.no_power = False
        self.go_on = threading.Event()
        self.go_on.set()

    def nvmlInit(self) -> None:
        if self.init_error:
            raise self.NVMLError(self.init_error)

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-00000000-0000-0000-0000-{handle:012}"

    def nvmlDeviceGetName(self, handle: int) -> str:
        self._check(handle)
        return "NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        self._check(handle)
        return SimpleNamespace(total=80 << 30, used=(handle + 1) << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        self._check(handle)
        return SimpleNamespace(gpu=40 + handle, memory=20)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if self.no_power:
            raise self.NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        self._check(handle)
        return 350_500

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        self._check(handle)
        return 61

    def _check(self, handle: int) -> None:
        if handle != 1:
            return
        self.go_on.wait()
        if self.lost:
            raise self.NVMLError(self.GPU_IS_LOST)
