"""What the NVML probe promises, whatever the driver does."""

from __future__ import annotations

import time

import pytest

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.nvml import NoDriver
from tests.contract.probes.world import READ_TIMEOUT_S, World

FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-{i:012}" for i in range(2))


def test_gpus_are_found_with_uuid_type_model_and_memory(world: World) -> None:
    world.start(gpus=2)
    model = "NVIDIA H100 80GB HBM3"
    assert world.devices() == [
        DetectedDevice(FIRST, 0, "H100", model, 80 << 30),
        DetectedDevice(SECOND, 1, "H100", model, 80 << 30),
    ]


def test_a_driver_without_gpus_has_no_devices(world: World) -> None:
    world.start(gpus=0)
    assert world.devices() == []
    assert world.read() == {}


def test_a_driver_that_does_not_start_is_no_driver(world: World) -> None:
    with pytest.raises(NoDriver):
        world.start(gpus=2, init_error=9)


def test_utilization_memory_power_and_temperature_are_read(world: World) -> None:
    world.start(gpus=2)
    reading = world.read()[SECOND]
    assert reading.utilization_percent == 41
    assert reading.memory_used_bytes == 2 << 30
    assert reading.memory_total_bytes == 80 << 30
    assert reading.power_watts == 350.5
    assert reading.temperature_celsius == 61
    assert reading.fault == ""


def test_what_a_gpu_does_not_measure_is_left_out_and_no_fault(world: World) -> None:
    world.start(gpus=1, no_power=True)
    reading = world.read()[FIRST]
    assert reading.power_watts is None
    assert reading.temperature_celsius == 61
    assert reading.fault == ""


def test_a_gpu_that_is_lost_later_is_at_fault_and_the_others_are_not(world: World) -> None:
    world.start(gpus=2)
    world.lose()
    readings = world.read()
    assert readings[SECOND].fault != ""
    assert readings[FIRST].fault == ""


def test_a_gpu_that_was_lost_before_is_known_and_not_healthy(world: World) -> None:
    world.lose()
    world.start(gpus=2)
    first, second = world.devices()
    assert first.healthy
    assert (second.device_id, second.healthy) == (SECOND, False)


def test_a_gpu_that_hangs_is_at_fault_costs_one_thread_and_comes_back(world: World) -> None:
    world.start(gpus=2)
    world.read()
    threads = world.threads()
    world.hang(True)
    for _ in range(4):
        started_s = time.monotonic()
        readings = world.read()
        assert time.monotonic() - started_s < READ_TIMEOUT_S * 10
        assert readings[SECOND].fault != ""
        assert readings[FIRST].fault == ""
    assert world.threads() == threads
    world.hang(False)
    deadline_s = time.monotonic() + 60
    while world.read()[SECOND].fault and time.monotonic() < deadline_s:
        pass
    assert world.read()[SECOND].fault == ""
