"""What a probe is: something that knows the devices of this machine and what they measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from node_agent.ranks import DetectedDevice


@dataclass(frozen=True, slots=True)
class Reading:
    """What one device measures; None for what it does not measure, or could not now.

    `fault` says what is wrong with the device, "" for nothing; with one it must not be used.
    """

    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_watts: float | None = None
    temperature_celsius: float | None = None
    fault: str = ""


class Probe(Protocol):
    """Knows one kind of devices. Its methods may be called from any thread, one at a time."""

    def devices(self) -> list[DetectedDevice]:
        """The devices that were found at the start, in the order of their index."""

    def read(self) -> Mapping[str, Reading]:
        """A reading of every device, by device id; returns within a few seconds, whatever hangs."""

    def close(self) -> None:
        """Ends the probe."""
