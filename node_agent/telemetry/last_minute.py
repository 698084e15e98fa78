"""What telemetry saw of a lease's devices lately, summed up in one small message: for failure records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from node_agent.telemetry.faults import COUNTERS, Faults
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.reporter import Sample
from scaimind.v1 import node_pb2

MINUTE_MS = 60_000
MOST_DEVICES = 16
MOST_TEXTS = 16


def last_minute(
    samples: Iterable[Sample], device_ids: Sequence[str], *, now_ms: int
) -> node_pb2.TelemetryWindow:
    """Sums up the samples of the minute before `now_ms` (UTC); at most 16 devices, a few KB.

    Without samples the window has no times and a count of 0.
    """
    seen = [x for x in samples if now_ms - MINUTE_MS <= x.measured_at_ms <= now_ms]
    window = node_pb2.TelemetryWindow(samples_count=len(seen))
    if not seen:
        return window
    window.first_at.CopyFrom(_time(seen[0].measured_at_ms))
    window.last_at.CopyFrom(_time(seen[-1].measured_at_ms))
    newest = seen[-1].host
    window.host_cpu_percent_max = max(x.host.cpu_percent for x in seen)
    window.host_memory_used_bytes_max = max(x.host.memory_used_bytes for x in seen)
    window.host_memory_total_bytes = newest.memory_total_bytes
    window.host_disk_used_bytes = newest.disk_used_bytes
    window.host_disk_total_bytes = newest.disk_total_bytes
    for device_id in device_ids[:MOST_DEVICES]:
        readings = [x.readings[device_id] for x in seen if device_id in x.readings]
        if readings:
            window.devices.append(_device(device_id, readings))
    return window


def _device(device_id: str, readings: list[Reading]) -> node_pb2.DeviceWindow:
    def most(value: Callable[[Reading], float | None]) -> float | None:
        return max((x for x in map(value, readings) if x is not None), default=None)

    busy = [x.utilization_percent for x in readings if x.utilization_percent is not None]
    used = most(lambda x: x.memory_used_bytes)
    faults = Faults()
    for reading in readings:
        faults.take({device_id: reading})
    reasons = dict.fromkeys(reason for x in readings for reason in x.throttle_reasons)
    return node_pb2.DeviceWindow(
        device_id=device_id,
        utilization_percent_mean=sum(busy) / len(busy) if busy else None,
        memory_used_bytes_max=None if used is None else int(used),
        memory_total_bytes=readings[-1].memory_total_bytes,
        power_watts_max=most(lambda x: x.power_watts),
        temperature_celsius_max=most(lambda x: x.temperature_celsius),
        throttle_reasons=list(reasons)[:MOST_TEXTS],
        ecc_uncorrected_count=_rise(readings, COUNTERS["ECC_UNCORRECTED"]),
        faults=faults.of(device_id)[:MOST_TEXTS],
        fault=readings[-1].fault[:512],
    )


def _rise(readings: list[Reading], name: str) -> int | None:
    known = [getattr(x, name) for x in readings if getattr(x, name) is not None]
    return known[-1] - known[0] if known else None


def _time(at_ms: int) -> Timestamp:
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)
