"""The instances of a GPU that is partitioned in hardware (MIG): each an ordinary device.

NVML counts the GPU as one and tells its instances by handles that are good until the partitioning changes,
so they are asked for anew with every reading. An instance has a UUID and memory of its own. What NVML tells of
the whole GPU alone is either how the GPU is (heat, clocks, errors, the link to the machine), which is so for
all of its instances, or what is drawn from it (utilization, power, energy, traffic), which is nobody's by
itself, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.probe import Reading

MOST_INSTANCES = 16
INVALID, NOT_FOUND, GPU_IS_LOST = 2, 6, 15
EVERY_INSTANCE = 0xFFFFFFFF
OF_THE_GPU = (
    "temperature_celsius",
    "memory_temperature_celsius",
    "sm_clock_mhz",
    "memory_clock_mhz",
    "throttle_reasons",
    "ecc_corrected_count",
    "ecc_uncorrected_count",
    "remapped_corrected_count",
    "remapped_uncorrected_count",
    "remap_pending",
    "remap_failed",
    "pcie_generation",
    "pcie_width",
    "pcie_width_max",
    "pcie_replays_count",
    "mig_enabled",
    "sram_worn",
    "fault",
    "fault_code",
)
"""What is so for every instance of a GPU."""

PROFILE = re.compile(r"(?:[1-7]c\.)?([1-7])g\.([1-9]\d{0,2})gb(?:[+.][a-z0-9.]{1,16})?")
MOST_SLICES = 7
_NAMED = re.compile(rf" MIG ({PROFILE.pattern})$", re.IGNORECASE)
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as it was found, with what is its own to measure."""

    device: DetectedDevice
    reading: Reading


def instance_type(gpu_type: str, profile: str) -> str:
    """The type of an instance, as the mixed strategy of Kubernetes' device plugin would name it.

    `H100` and `1g.10gb+me` make `H100-1g.10gb.me`. No whole GPU's type has a dash.
    """
    return f"{gpu_type}-{profile.replace('+', '.')}"


def sizes_of(profile: str) -> tuple[int, int]:
    """Sevenths of a GPU's processors and GiB of memory that an instance takes of it; ValueError."""
    match = PROFILE.fullmatch(profile)
    if match is None or not 0 < int(match[1]) <= MOST_SLICES:
        raise ValueError(f"{profile[:32]} is no profile of an instance such as 1g.10gb")
    return int(match[1]), int(match[2])


def found(nvml: Any, gpu: DetectedDevice, handle: Any) -> list[Instance]:
    """The instances that a GPU has now, by number. NVMLError where the GPU itself fails."""
    count = min(nvml.nvmlDeviceGetMaxMigDeviceCount(handle), MOST_INSTANCES)
    return list(_found(nvml, gpu, handle, count=count))


def _found(nvml: Any, gpu: DetectedDevice, handle: Any, *, count: int) -> Iterator[Instance]:
    for number in range(count):
        try:
            yield _instance(nvml, gpu, nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
        except nvml.NVMLError as error:
            # Places that are empty are not found; what goes away meanwhile is not valid any more.
            if error.value not in (NOT_FOUND, INVALID):
                raise


def _instance(nvml: Any, gpu: DetectedDevice, handle: Any) -> Instance:
    uuid = text(nvml.nvmlDeviceGetUUID(handle))
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    model = text(nvml.nvmlDeviceGetName(handle))
    named = _NAMED.search(model)
    profile = named[1] if named else _profile(nvml, gpu, handle)
    try:
        processes_count = len(nvml.nvmlDeviceGetComputeRunningProcesses(handle))
    except (nvml.NVMLError, AttributeError):
        processes_count = None
    device = replace(
        gpu,
        device_id=uuid,
        type=instance_type(gpu.type, profile),
        model=model if named else f"{gpu.model} MIG {profile}",
        memory_bytes=int(memory.total),
        healthy=True,
        gpu_id=gpu.device_id,
        profile=profile,
        instance=int(nvml.nvmlDeviceGetGpuInstanceId(handle)),
    )
    own = Reading(
        memory_used_bytes=int(memory.used),
        memory_total_bytes=int(memory.total),
        processes_count=processes_count,
    )
    return Instance(device, own)


def _profile(nvml: Any, gpu: DetectedDevice, handle: Any) -> str:
    """What the driver calls such an instance, where its name does not say it."""
    told = nvml.nvmlDeviceGetAttributes(handle)
    compute, slices = int(told.computeInstanceSliceCount), int(told.gpuInstanceSliceCount)
    memory_bytes, whole_bytes = int(told.memorySizeMB) << 20, gpu.memory_bytes
    gib = round(memory_bytes / _GIB)
    if whole_bytes:  # as NVIDIA rounds it: to eighths of the GPU, whose memory is whole GiB
        gib = round(-(-memory_bytes * 8 // whole_bytes) / 8 * -(-whole_bytes // _GIB))
    part = "" if compute == slices else f"{compute}c."
    return f"{part}{slices}g.{gib}gb"


def of_instance(own: Reading, gpu: Reading) -> Reading:
    """What an instance measures: its own, and how its GPU is."""
    return replace(own, **{name: getattr(gpu, name) for name in OF_THE_GPU})


def text(value: str | bytes) -> str:
    """What NVML says, as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
