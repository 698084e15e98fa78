"""What is measured at one time: of the machine, and of each of its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node_agent.telemetry.probe import Reading


@dataclass(frozen=True, slots=True)
class Host:
    """What the machine measures of itself; the disk is that of the data directory."""

    cpu_percent: float
    memory_used_bytes: int
    memory_total_bytes: int
    disk_used_bytes: int
    disk_total_bytes: int
    network_received_bytes: int = 0
    network_sent_bytes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """All that was measured at one time."""

    measured_at_ms: int
    host: Host
    readings: Mapping[str, Reading]
