"""A stand-in for the module `pynvml`: the same GPUs as fake_nvml.c has, without a compiler."""

from __future__ import annotations

import threading
from types import SimpleNamespace

PLACES = 7
Handle = int | tuple[int, int]  # of a GPU; of an instance: its GPU, and its number


class StandIn:
    """Looks like pynvml to the probe; GPU 1 can be lost, or hang while `go_on` is not set.

    `instances` tells of partitioned GPUs (MIG) how many of 1g.10gb they have.
    """

    NVML_TEMPERATURE_GPU = 0
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    INVALID, NOT_FOUND, GPU_IS_LOST = 2, 6, 15

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"error {value}")
            self.value = value

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.init_error = 0
        self.lost = False
        self.no_power = False
        self.instances: dict[int, int] = {}
        self.go_on = threading.Event()
        self.go_on.set()

    def nvmlInit(self) -> None:
        if self.init_error:
            raise self.NVMLError(self.init_error)

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: Handle) -> str:
        if isinstance(handle, tuple):
            return f"MIG-00000000-0000-0000-{handle[0]:04}-{handle[1]:012}"
        return f"GPU-00000000-0000-0000-0000-{handle:012}"

    def nvmlDeviceGetName(self, handle: Handle) -> str:
        self._check(handle)
        says = isinstance(handle, tuple) and handle[1] % 2 == 0
        return "NVIDIA H100 80GB HBM3" + " MIG 1g.10gb" * says

    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> SimpleNamespace:
        self._check(handle)
        if isinstance(handle, tuple):
            if handle[1] >= self.instances.get(handle[0], 0):
                raise self.NVMLError(self.INVALID)
            return SimpleNamespace(total=9856 << 20, used=(handle[0] + 1) << 30)
        return SimpleNamespace(total=80 << 30, used=(handle + 1) << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        self._check(handle)
        if handle in self.instances:
            raise self.NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=40 + handle, memory=20)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if self.no_power:
            raise self.NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        self._check(handle)
        return 350_500

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        self._check(handle)
        return 61

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        self._check(handle)
        return [int(handle in self.instances)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: int) -> int:
        self._check(handle)
        return PLACES

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: int, number: int) -> Handle:
        if number >= self.instances.get(handle, 0):
            raise self.NVMLError(self.NOT_FOUND)
        self._check(handle)
        return handle, number

    def nvmlDeviceGetGpuInstanceId(self, handle: Handle) -> int:
        assert isinstance(handle, tuple)
        return 7 + handle[1]

    def nvmlDeviceGetAttributes(self, handle: Handle) -> SimpleNamespace:
        return SimpleNamespace(
            gpuInstanceSliceCount=1, computeInstanceSliceCount=1, memorySizeMB=9856
        )

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> list[object]:
        return []

    def _check(self, handle: Handle) -> None:
        if (handle[0] if isinstance(handle, tuple) else handle) != 1:
            return
        self.go_on.wait()
        if self.lost:
            raise self.NVMLError(self.GPU_IS_LOST)
