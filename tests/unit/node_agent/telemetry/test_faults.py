"""Faults are counted from their beginnings, and what telemetry saw lately is summed up in a small message."""

from __future__ import annotations

from dataclasses import replace

from node_agent.telemetry import last_minute
from node_agent.telemetry.faults import MOST_CODES, Faults
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.samples import Host, Sample

HOST = Host(25.0, 10, 20, 30, 40)
WELL = Reading(50.0, 8 << 30, 80 << 30, 300.0, 61.0)


def counts(faults: Faults, device_id: str = "d0") -> dict[str, int]:
    return {fault.code: fault.seen_count for fault in faults.of(device_id)}


def test_errors_of_the_driver_are_counted_as_they_come() -> None:
    faults = Faults()
    assert faults.take({"d0": replace(WELL, xids=(79, 13, 13)), "d1": WELL})
    assert not faults.take({"d0": WELL, "d1": WELL})
    assert counts(faults) == {"XID_79": 1, "XID_13": 2}
    assert counts(faults, "d1") == {}


def test_a_condition_counts_once_when_it_begins() -> None:
    faults = Faults()
    hot = replace(WELL, throttle_reasons=("HW_THERMAL_SLOWDOWN",), pcie_width=8, pcie_width_max=16)
    for reading in (hot, hot, WELL, hot):
        faults.take({"d0": reading})
    assert counts(faults) == {"THERMAL_SLOWDOWN": 2, "PCIE_DEGRADED": 2}


def test_a_lost_device_is_a_fault_with_its_code_and_text() -> None:
    faults = Faults()
    faults.take({"d0": Reading(fault="GPU is lost", fault_code="DEVICE_LOST")})
    faults.take({"d1": Reading(fault="odd")})
    [fault] = faults.of("d0")
    assert (fault.code, fault.seen_count, fault.message) == ("DEVICE_LOST", 1, "GPU is lost")
    assert counts(faults, "d1") == {"UNREADABLE": 1}


def test_errors_of_memory_count_when_their_number_rises() -> None:
    faults = Faults()
    for number in (7, 7, 9, 0):  # what was there before the agent is not new; a reset is none
        faults.take({"d0": replace(WELL, ecc_uncorrected_count=number)})
    assert counts(faults) == {"ECC_UNCORRECTED": 1}


def test_codes_are_bounded() -> None:
    faults = Faults()
    faults.take({"d0": replace(WELL, xids=tuple(range(1000, 1200)))})
    assert len(faults.of("d0")) == MOST_CODES


def test_the_last_minute_is_summed_up_for_the_devices_of_a_lease() -> None:
    samples = [
        Sample(at_ms, replace(HOST, cpu_percent=float(cpu)), {"d0": reading, "d1": WELL})
        for at_ms, cpu, reading in (
            (1_000, 99, replace(WELL, power_watts=999.0)),
            (61_000, 10, replace(WELL, utilization_percent=100.0, ecc_uncorrected_count=1)),
            (66_000, 40, replace(WELL, xids=(48,), ecc_uncorrected_count=3)),
            (71_000, 20, Reading(fault="GPU is lost", fault_code="DEVICE_LOST")),
        )
    ]
    window = last_minute(samples, ["d0"], now_ms=72_000)
    assert (window.samples_count, window.first_at.seconds, window.last_at.seconds) == (3, 61, 71)
    assert window.host_cpu_percent_max == 40.0
    [device] = window.devices
    assert (device.device_id, device.utilization_percent_mean) == ("d0", 75.0)
    assert (device.power_watts_max, device.temperature_celsius_max) == (300.0, 61.0)
    assert device.ecc_uncorrected_count == 2
    assert [fault.code for fault in device.faults] == ["DEVICE_LOST", "ECC_UNCORRECTED", "XID_48"]
    assert device.fault == "GPU is lost"


def test_where_nothing_was_measured_the_window_is_empty_and_it_is_always_small() -> None:
    assert last_minute([], ["d0"], now_ms=0).samples_count == 0
    ids = [f"device-{number}" for number in range(1024)]
    wild = replace(WELL, xids=tuple(range(500)), fault="x" * 9_000)
    samples = [Sample(number * 50, HOST, dict.fromkeys(ids, wild)) for number in range(20)]
    window = last_minute(samples, ids, now_ms=1_000)
    assert len(window.devices) == 16
    assert window.ByteSize() <= 32_768
