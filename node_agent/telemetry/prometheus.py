"""A sample in Prometheus' text format: GPUs under the names of NVIDIA's DCGM exporter, so that
existing dashboards work, and the machine under names of our own.

Only what NVML measures is shown; simulated devices carry a label that says so, and cores, which
are no GPUs, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.reporter import Host, Sample

_MIB = 1024**2
_Value = Callable[[Reading], float | None]


def _free_mib(reading: Reading) -> float | None:
    if reading.memory_used_bytes is None or reading.memory_total_bytes is None:
        return None
    return (reading.memory_total_bytes - reading.memory_used_bytes) / _MIB


_GPU_METRICS: tuple[tuple[str, str, _Value], ...] = (
    ("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", lambda r: r.utilization_percent),
    (
        "DCGM_FI_DEV_FB_USED",
        "Framebuffer memory used (in MiB).",
        lambda r: None if r.memory_used_bytes is None else r.memory_used_bytes / _MIB,
    ),
    ("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", _free_mib),
    ("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", lambda r: r.power_watts),
    ("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", lambda r: r.temperature_celsius),
    ("mind_device_healthy", "Whether jobs may use the device.", lambda r: float(not r.fault)),
)
_HOST_METRICS: tuple[tuple[str, str, Callable[[Host], float]], ...] = (
    ("mind_node_cpu_ratio", "Share of CPU time in use.", lambda h: h.cpu_percent / 100),
    ("mind_node_memory_used_bytes", "Memory in use.", lambda h: h.memory_used_bytes),
    ("mind_node_memory_total_bytes", "Memory in all.", lambda h: h.memory_total_bytes),
    ("mind_node_disk_used_bytes", "Data disk in use.", lambda h: h.disk_used_bytes),
    ("mind_node_disk_total_bytes", "Data disk in all.", lambda h: h.disk_total_bytes),
)


def render(sample: Sample, devices: Sequence[DetectedDevice], *, hostname: str) -> str:
    """The sample as text; `devices` are those that it was read from."""
    lines: list[str] = []
    gpus = [d for d in devices if d.type != "CPU" and d.device_id in sample.readings]
    for name, about, value in _GPU_METRICS:
        values = ((_labels(gpu, hostname), value(sample.readings[gpu.device_id])) for gpu in gpus)
        lines += _family(name, about, values=values)
    host_labels = _braced({"Hostname": hostname})
    for name, about, of_host in _HOST_METRICS:
        lines += _family(name, about, values=[(host_labels, of_host(sample.host))])
    return "".join(f"{line}\n" for line in lines)


def _family(name: str, about: str, *, values: Iterable[tuple[str, float | None]]) -> list[str]:
    lines = [f"{name}{labels} {value:.10g}" for labels, value in values if value is not None]
    return [f"# HELP {name} {about}", f"# TYPE {name} gauge", *lines] if lines else []


def _labels(device: DetectedDevice, hostname: str) -> str:
    labels = {
        "gpu": str(device.index),
        "UUID": device.device_id,
        "device": f"nvidia{device.index}",
        "modelName": device.model,
        "Hostname": hostname,
    }
    return _braced({**labels, "simulated": "true"} if device.simulated else labels)


def _braced(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items()) + "}"


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
