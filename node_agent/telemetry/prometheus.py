"""A sample in Prometheus' text format: GPUs under the names of NVIDIA's DCGM exporter, so that
existing dashboards work, and the machine under names of our own. What a job holds carries its labels.

Only what NVML measures is shown; simulated devices carry a label that says so, and cores, which
are no GPUs, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.nvml_reading import throttle_bits
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.reporter import TelemetryReporter
from node_agent.telemetry.samples import Host, Sample

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
    (
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        "Memory utilization (in %).",
        lambda r: r.memory_utilization_percent,
    ),
    (
        "DCGM_FI_DEV_MEMORY_TEMP",
        "Memory temperature (in C).",
        lambda r: r.memory_temperature_celsius,
    ),
    ("DCGM_FI_DEV_POWER_MGMT_LIMIT", "Power limit (in W).", lambda r: r.power_limit_watts),
    (
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "Energy since the driver was loaded (in mJ).",
        lambda r: None if r.energy_joules is None else r.energy_joules * 1000,
    ),
    ("DCGM_FI_DEV_SM_CLOCK", "SM clock (in MHz).", lambda r: r.sm_clock_mhz),
    ("DCGM_FI_DEV_MEM_CLOCK", "Memory clock (in MHz).", lambda r: r.memory_clock_mhz),
    (
        "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS",
        "Reasons for lower clocks, as bits.",
        lambda r: throttle_bits(r.throttle_reasons),
    ),
    (
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        "Errors that were corrected, since the driver was loaded.",
        lambda r: r.ecc_corrected_count,
    ),
    (
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        "Errors that could not be corrected, since the driver was loaded.",
        lambda r: r.ecc_uncorrected_count,
    ),
    (
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Rows replaced for errors that were corrected.",
        lambda r: r.remapped_corrected_count,
    ),
    (
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Rows replaced for errors that could not be corrected.",
        lambda r: r.remapped_uncorrected_count,
    ),
    ("DCGM_FI_DEV_ROW_REMAP_FAILURE", "Whether a row was not replaced.", lambda r: r.remap_failed),
    ("DCGM_FI_DEV_ROW_REMAP_PENDING", "Whether rows wait for a reset.", lambda r: r.remap_pending),
    ("DCGM_FI_DEV_PCIE_LINK_GEN", "Generation of the PCIe link.", lambda r: r.pcie_generation),
    ("DCGM_FI_DEV_PCIE_LINK_WIDTH", "Lanes of the PCIe link.", lambda r: r.pcie_width),
    ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "Packets sent again.", lambda r: r.pcie_replays_count),
    ("mind_device_healthy", "Whether jobs may use the device.", lambda r: float(not r.fault)),
)
_HOST_METRICS: tuple[tuple[str, str, Callable[[Host], float]], ...] = (
    ("mind_node_cpu_ratio", "Share of CPU time in use.", lambda h: h.cpu_percent / 100),
    ("mind_node_memory_used_bytes", "Memory in use.", lambda h: h.memory_used_bytes),
    ("mind_node_memory_total_bytes", "Memory in all.", lambda h: h.memory_total_bytes),
    ("mind_node_disk_used_bytes", "Data disk in use.", lambda h: h.disk_used_bytes),
    ("mind_node_disk_total_bytes", "Data disk in all.", lambda h: h.disk_total_bytes),
    ("mind_node_network_received_bytes", "Bytes received.", lambda h: h.network_received_bytes),
    ("mind_node_network_sent_bytes", "Bytes sent.", lambda h: h.network_sent_bytes),
    ("mind_node_disk_read_bytes", "Bytes read from disks.", lambda h: h.disk_read_bytes),
    ("mind_node_disk_written_bytes", "Bytes written to disks.", lambda h: h.disk_written_bytes),
)


def render(
    sample: Sample,
    devices: Sequence[DetectedDevice],
    *,
    hostname: str,
    holders: Mapping[str, Mapping[str, str]] | None = None,
    xids: Mapping[str, int] | None = None,
) -> str:
    """The sample as text; `devices` are those that it was read from.

    `holders` are labels of the jobs that hold devices, by device id; of a device that several share
    those of one. `xids` are the newest errors that the driver told of devices.
    """
    lines: list[str] = []
    gpus = [d for d in devices if d.type != "CPU" and d.device_id in sample.readings]
    labels = {
        gpu.device_id: _labels(gpu, hostname, (holders or {}).get(gpu.device_id, {}))
        for gpu in gpus
    }
    for name, about, value in _GPU_METRICS:
        values = [(labels[gpu.device_id], value(sample.readings[gpu.device_id])) for gpu in gpus]
        lines += _family(name, about, values=values)
    told = [(labels[id], float(xid)) for id, xid in (xids or {}).items() if id in labels]
    lines += _family("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error.", values=told)
    host_labels = _braced({"Hostname": hostname})
    for name, about, of_host in _HOST_METRICS:
        lines += _family(name, about, values=[(host_labels, of_host(sample.host))])
    return "".join(f"{line}\n" for line in lines)


def page(
    telemetry: TelemetryReporter, *, hostname: str, holders: Mapping[str, Mapping[str, str]]
) -> str:
    """The newest sample of a reporter as text; "" before the first."""
    if not telemetry.samples:
        return ""
    return render(
        telemetry.samples[-1],
        telemetry.devices(),
        hostname=hostname,
        holders=holders,
        xids=telemetry.faults.last_xid,
    )


def _family(name: str, about: str, *, values: Iterable[tuple[str, float | None]]) -> list[str]:
    lines = [f"{name}{labels} {value:.10g}" for labels, value in values if value is not None]
    return [f"# HELP {name} {about}", f"# TYPE {name} gauge", *lines] if lines else []


def _labels(device: DetectedDevice, hostname: str, holder: Mapping[str, str]) -> str:
    labels = {
        "gpu": str(device.index),
        "UUID": device.gpu_id or device.device_id,
        "device": f"nvidia{device.index}",
        "modelName": device.model,
        "Hostname": hostname,
        **holder,
    }
    if device.is_instance:
        labels |= {
            "GPU_I_PROFILE": device.profile,
            "GPU_I_ID": str(device.instance),
            "mig_uuid": device.device_id,
        }
    return _braced({**labels, "simulated": "true"} if device.simulated else labels)


def _braced(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items()) + "}"


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
