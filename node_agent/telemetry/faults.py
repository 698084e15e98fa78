"""What was seen to go wrong with devices since the agent's start: codes and counts, nothing judged.

Errors that a driver tells are counted as they come. A condition (a row that could not be replaced, a clock
that is held down by heat) counts once when it begins. What each means, the coordinator decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from node_agent.telemetry.probe import Reading
from scaimind.v1 import node_pb2

MOST_CODES = 64
TEXT_MAX = 512
HOT = frozenset({"HW_SLOWDOWN", "HW_THERMAL_SLOWDOWN", "SW_THERMAL_SLOWDOWN"})


class Faults:
    """Counts by device and code."""

    def __init__(self) -> None:
        self.last_xid: dict[str, int] = {}  # by device
        self._seen: dict[str, dict[str, node_pb2.DeviceFault]] = {}
        self._on: set[tuple[str, str]] = set()
        self._before: dict[str, Reading] = {}

    def take(self, readings: Mapping[str, Reading]) -> bool:
        """Counts what is new in a reading of every device; whether anything is."""
        news = False
        for device_id, reading in readings.items():
            for xid in reading.xids:
                text = f"the driver reported XID {xid}"
                news |= self._count(device_id, f"XID_{xid}", text=text)
                self.last_xid[device_id] = xid
            on = dict(_conditions(reading))
            for code, text in on.items():
                if (device_id, code) not in self._on:
                    news |= self._count(device_id, code, text=text)
            self._on = {x for x in self._on if x[0] != device_id} | {(device_id, x) for x in on}
            for code, name in COUNTERS.items():
                news |= self._rose(device_id, code, name=name, reading=reading)
            self._before[device_id] = reading
        return news

    def of(self, device_id: str) -> list[node_pb2.DeviceFault]:
        """What was seen of a device, by code."""
        seen = self._seen.get(device_id, {})
        return [seen[code] for code in sorted(seen)]

    def _rose(self, device_id: str, code: str, *, name: str, reading: Reading) -> bool:
        before = self._before.get(device_id)
        now: int | None = getattr(reading, name)
        old: int | None = getattr(before, name) if before is not None else None
        if now is None or old is None or now <= old:
            return False
        return self._count(device_id, code, text=f"{name.replace('_', ' ')}: {now}, from {old}")

    def _count(self, device_id: str, code: str, *, text: str) -> bool:
        seen = self._seen.setdefault(device_id, {})
        if code not in seen and len(seen) >= MOST_CODES:
            return False
        count = seen[code].seen_count if code in seen else 0
        seen[code] = node_pb2.DeviceFault(code=code, seen_count=count + 1, message=text[:TEXT_MAX])
        return True


COUNTERS = {
    "ECC_UNCORRECTED": "ecc_uncorrected_count",
    "NVLINK_ERRORS": "nvlink_errors_count",
}


def _conditions(reading: Reading) -> Iterator[tuple[str, str]]:
    if reading.fault:
        yield reading.fault_code or "UNREADABLE", reading.fault
    if reading.remap_failed:
        yield "ROW_REMAP_FAILED", "a row of its memory could not be replaced"
    if reading.sram_worn:
        yield "SRAM_ECC", "it has had more errors of its SRAM than its maker allows"
    if reading.remap_pending:
        yield "ROW_REMAP_PENDING", "rows of its memory are replaced when it is reset"
    if HOT.intersection(reading.throttle_reasons):
        yield "THERMAL_SLOWDOWN", "its clocks are held down, by heat or by hardware"
    if "HW_POWER_BRAKE" in reading.throttle_reasons:
        yield "POWER_BRAKE", "its power supply holds it down"
    width, widest = reading.pcie_width, reading.pcie_width_max
    if width and widest and width < widest:
        yield "PCIE_DEGRADED", f"its PCIe link has {width} of {widest} lanes"
