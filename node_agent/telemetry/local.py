"""Devices that need no driver: the cores of this machine, and simulated GPUs."""

from __future__ import annotations

import math
import os
import platform
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.instances import MOST_SLICES, instance_type, of_instance, sizes_of
from node_agent.telemetry.models import GIB, MEMORY_BYTES
from node_agent.telemetry.probe import Reading

_CPU_INFO = Path("/proc/cpuinfo")
_WAVE_S = 600.0


class CpuProbe:
    """One device for each core that this process may use, with the memory shared out."""

    def __init__(self) -> None:
        cores = _usable_cores()
        share_bytes = psutil.virtual_memory().total // len(cores)
        model = _cpu_model()
        self._devices = [
            DetectedDevice(f"cpu-{core}", core, "CPU", model, share_bytes) for core in cores
        ]
        psutil.cpu_percent(percpu=True)  # the next reading measures from here

    def devices(self) -> list[DetectedDevice]:
        """The cores, by number."""
        return list(self._devices)

    def read(self) -> Mapping[str, Reading]:
        """How busy each core was since the last reading."""
        busy = psutil.cpu_percent(percpu=True)
        return {
            d.device_id: Reading(utilization_percent=busy[d.index] if d.index < len(busy) else None)
            for d in self._devices
        }

    def close(self) -> None:
        """Nothing is held."""


class SimulatedProbe:
    """GPUs that are not there; what they measure follows from their id and the time alone.

    A type such as `H100-1g.10gb` is an instance of a partitioned GPU (MIG); those that follow each other
    share a GPU for as long as they fit on it.
    """

    def __init__(self, types: Sequence[str], *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        numbers: dict[str, int] = {}
        self._devices: list[DetectedDevice] = []
        for name in types:
            number = numbers.get(name, 0)
            numbers[name] = number + 1
            gpu_type, _, profile = name.partition("-")
            last = self._devices[-1] if self._devices else None
            self._devices.append(
                _part(gpu_type, profile, number=number, last=last)
                if profile
                else DetectedDevice(
                    device_id=f"sim-{name}-{number}",
                    index=last.index + 1 if last else 0,
                    type=name,
                    model=f"Simulated {name}",
                    memory_bytes=MEMORY_BYTES[name],
                    simulated=True,
                )
            )

    def devices(self) -> list[DetectedDevice]:
        """The simulated GPUs, in the order of the specification."""
        return list(self._devices)

    def read(self) -> Mapping[str, Reading]:
        """Plausible values that rise and fall together."""
        now_s = self._clock()
        return {device.device_id: _simulate(device, now_s) for device in self._devices}

    def close(self) -> None:
        """Nothing is held."""


def _part(
    gpu_type: str, profile: str, *, number: int, last: DetectedDevice | None
) -> DetectedDevice:
    """An instance, on the GPU of the last device where there is room for it."""
    slices, gib = sizes_of(profile)
    used = last.instance + sizes_of(last.profile)[0] if last and last.profile else MOST_SLICES
    fits = (
        last is not None and last.type.startswith(f"{gpu_type}-") and used + slices <= MOST_SLICES
    )
    index = last.index + (not fits) if last else 0
    return DetectedDevice(
        device_id=f"MIG-sim-{gpu_type}-{profile}-{number}",
        index=index,
        type=instance_type(gpu_type, profile),
        model=f"Simulated {gpu_type} MIG {profile}",
        memory_bytes=gib * GIB,
        simulated=True,
        gpu_id=f"GPU-sim-{index}",
        profile=profile,
        instance=used if fits else 0,
    )


def _simulate(device: DetectedDevice, now_s: float) -> Reading:
    if device.is_instance:
        whole = _simulate(replace(device, device_id=device.gpu_id, profile=""), now_s)
        own = Reading(
            memory_used_bytes=whole.memory_used_bytes, memory_total_bytes=device.memory_bytes
        )
        return of_instance(own, replace(whole, mig_enabled=True))
    phase = zlib.crc32(device.device_id.encode()) % 1000 / 1000
    load = 0.5 + 0.5 * math.sin(2 * math.pi * (now_s / _WAVE_S + phase))
    return Reading(
        utilization_percent=round(100 * load, 1),
        memory_used_bytes=int(device.memory_bytes * (0.02 + 0.8 * load)),
        memory_total_bytes=device.memory_bytes,
        power_watts=round(70 + 550 * load, 1),
        temperature_celsius=round(32 + 40 * load, 1),
    )


def _usable_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpu_model() -> str:
    try:
        lines = _CPU_INFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine() or "CPU"
