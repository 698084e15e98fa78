"""A failure as people read it: what failed first, its last lines, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loaded by those who have a job in their hands
    from scaimind.v1 import job_pb2, node_pb2

GIB = 1 << 30


def rows(job: job_pb2.Job) -> list[tuple[str, str]]:
    """Lines of a job's table; those without a value are empty."""
    if not job.HasField("error"):
        return []
    fault = job.error
    lines = [("last lines" if n == 0 else "", line) for n, line in enumerate(fault.last_lines)]
    return [
        ("failed first", _first(fault)),
        *lines,
        *_measured(fault.telemetry),
        ("next", fault.advice),
    ]


def _first(fault: job_pb2.JobError) -> str:
    if not fault.HasField("first_failing_rank"):
        return f"on {fault.node_id}" if fault.node_id else ""
    end = f", signal {fault.signal}" if fault.HasField("signal") else ""
    where = f" on {fault.node_id}" if fault.node_id else ""
    return f"rank {fault.first_failing_rank}{where}{end}"


def _measured(seen: node_pb2.TelemetryWindow) -> list[tuple[str, str]]:
    """What the node measured in the minute before: the machine first, then each device."""
    if not seen.samples_count:
        return []
    memory = _part(seen.host_memory_used_bytes_max, seen.host_memory_total_bytes)
    disk = _part(seen.host_disk_used_bytes, seen.host_disk_total_bytes)
    machine = f"CPU {seen.host_cpu_percent_max:.0f} %, memory {memory}, disk {disk}"
    return [("the minute before", machine), *(("", _device(device)) for device in seen.devices)]


def _device(device: node_pb2.DeviceWindow) -> str:
    known = [
        f"busy {device.utilization_percent_mean:.0f} %"
        if device.HasField("utilization_percent_mean")
        else "",
        f"memory {_part(device.memory_used_bytes_max, device.memory_total_bytes)}"
        if device.HasField("memory_used_bytes_max")
        else "",
        f"{device.power_watts_max:.0f} W" if device.HasField("power_watts_max") else "",
        f"{device.temperature_celsius_max:.0f} °C"
        if device.HasField("temperature_celsius_max")
        else "",
        *device.throttle_reasons,
        f"{device.ecc_uncorrected_count} errors of memory" if device.ecc_uncorrected_count else "",
        *(f"{fault.code} x{fault.seen_count}" for fault in device.faults),
        device.fault,
    ]
    return f"{device.device_id}: {', '.join(text for text in known if text) or 'nothing told'}"


def _part(used_bytes: int, total_bytes: int) -> str:
    return f"{used_bytes / GIB:.1f} of {total_bytes / GIB:.1f} GiB"
