"""What telemetry saw of a lease's devices lately, summed up in one small message: for failure records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from node_agent.telemetry.faults import COUNTERS, Faults
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.reporter import TelemetryReporter
from node_agent.telemetry.samples import Sample
from scaimind.v1 import node_pb2

MINUTE_MS = 60_000
AFTER_MS = 5_000  # what a driver tells of a failure may come after the rank has ended of it
MOST_DEVICES = 16
MOST_TEXTS = 8
TEXT_MAX = 160


async def witness(
    telemetry: TelemetryReporter, device_ids: Sequence[str], failed_at_ms: int
) -> node_pb2.TelemetryWindow:
    """What was measured in the minute before a failure (UTC), with what is measured now if that is soon."""
    await telemetry.look()
    now_ms = min(time.time_ns() // 1_000_000, failed_at_ms + AFTER_MS)
    samples = (*telemetry.earlier, *telemetry.samples)
    return last_minute(samples, device_ids, now_ms=now_ms)


def last_minute(
    samples: Iterable[Sample], device_ids: Sequence[str], *, now_ms: int
) -> node_pb2.TelemetryWindow:
    """Sums up the samples of the minute before `now_ms` (UTC): at most 16 devices, and 32 KB.

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
        device_id=device_id[:256],
        utilization_percent_mean=sum(busy) / len(busy) if busy else None,
        memory_used_bytes_max=None if used is None else int(used),
        memory_total_bytes=readings[-1].memory_total_bytes,
        power_watts_max=most(lambda x: x.power_watts),
        temperature_celsius_max=most(lambda x: x.temperature_celsius),
        throttle_reasons=[x[:64] for x in reasons][:MOST_TEXTS],
        ecc_uncorrected_count=_rise(readings, COUNTERS["ECC_UNCORRECTED"]),
        faults=[
            node_pb2.DeviceFault(
                code=x.code[:64], seen_count=x.seen_count, message=x.message[:TEXT_MAX]
            )
            for x in faults.of(device_id)[:MOST_TEXTS]
        ],
        fault=readings[-1].fault[:TEXT_MAX],
    )


def _rise(readings: list[Reading], name: str) -> int | None:
    known = [getattr(x, name) for x in readings if getattr(x, name) is not None]
    return known[-1] - known[0] if known else None


def _time(at_ms: int) -> Timestamp:
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)
