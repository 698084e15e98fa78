"""What a probe is: something that knows the devices of this machine and what they measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from node_agent.ranks import DetectedDevice


@dataclass(frozen=True, slots=True)
class Reading:
    """What one device measures; None for what it does not measure, or could not now.

    Names are those of the message DeviceTelemetry. `fault` says what is wrong with the device, "" for
    nothing; with one it must not be used. `fault_code` names it, and `xids` are the errors that its
    driver has told since the last reading.
    """

    utilization_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_watts: float | None = None
    temperature_celsius: float | None = None
    memory_utilization_percent: float | None = None
    memory_temperature_celsius: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    ecc_corrected_count: int | None = None
    ecc_uncorrected_count: int | None = None
    remapped_corrected_count: int | None = None
    remapped_uncorrected_count: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    pcie_replays_count: int | None = None
    pcie_sent_bytes_per_second: int | None = None
    pcie_received_bytes_per_second: int | None = None
    nvlink_active_count: int | None = None
    nvlink_errors_count: int | None = None
    processes_count: int | None = None
    mig_enabled: bool | None = None
    sram_worn: bool | None = (
        None  # more errors of its SRAM than its maker allows; told as a fault alone
    )
    fault: str = ""
    fault_code: str = ""
    xids: tuple[int, ...] = ()


class Probe(Protocol):
    """Knows one kind of devices. Its methods may be called from any thread, one at a time."""

    def devices(self) -> list[DetectedDevice]:
        """The devices that were found last, in the order of their index: at the start, or by `read`."""

    def read(self) -> Mapping[str, Reading]:
        """A reading of every device, by device id; returns within a few seconds, whatever hangs."""

    def close(self) -> None:
        """Ends the probe."""
