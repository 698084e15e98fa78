"""What probes promise of GPUs that are partitioned in hardware (MIG): instances are devices of their own."""

from __future__ import annotations

from tests.contract.probes.world import AnyWorld, World

FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-{i:012}" for i in range(2))
INSTANCES = [f"MIG-00000000-0000-0000-0001-{i:012}" for i in range(7)]


def test_instances_are_offered_in_place_of_their_gpu_and_others_as_they_are(
    any_world: AnyWorld,
) -> None:
    any_world.partition(1, 3)
    any_world.start(gpus=3)
    found = any_world.devices()
    small = "H100-1g.10gb"
    assert [one.type for one in found] == ["H100", small, small, small, "H100"]
    assert [one.index for one in found] == [0, 1, 1, 1, 2]
    assert [one.is_instance for one in found] == [False, True, True, True, False]
    assert len({one.device_id for one in found}) == 5
    assert all(one.healthy for one in found)
    instances = found[1:4]
    assert all(one.device_id.startswith("MIG-") for one in instances)
    assert all(9 << 30 < one.memory_bytes <= 10 << 30 for one in instances)
    assert {one.model.partition(" MIG ")[2] for one in instances} == {"1g.10gb"}
    assert len({one.gpu_id for one in instances} - {one.device_id for one in found}) == 1
    assert len({one.instance for one in instances}) == 3


def test_every_device_is_read_and_an_instance_tells_its_own_and_how_its_gpu_is(
    any_world: AnyWorld,
) -> None:
    any_world.partition(1, 3)
    any_world.start(gpus=3)
    readings = any_world.read()
    assert sorted(readings) == sorted(one.device_id for one in any_world.devices())
    for device in any_world.devices():
        reading = readings[device.device_id]
        assert reading.fault == ""
        assert reading.memory_total_bytes == device.memory_bytes
        assert reading.memory_used_bytes is not None
        assert 0 <= reading.memory_used_bytes <= device.memory_bytes
        assert reading.temperature_celsius is not None
        assert (reading.utilization_percent is None) is device.is_instance
        assert (reading.power_watts is None) is device.is_instance
        assert bool(reading.mig_enabled) is device.is_instance


def test_partitioning_may_change_while_the_probe_runs(world: World) -> None:
    world.start(gpus=2)
    assert [one.device_id for one in world.devices()] == [FIRST, SECOND]
    for count in (7, 2):
        world.partition(1, count)
        assert sorted(world.read()) == sorted([FIRST, *INSTANCES[:count]])
        assert [one.device_id for one in world.devices()] == [FIRST, *INSTANCES[:count]]
    world.partition(1, None)
    assert sorted(world.read()) == [FIRST, SECOND]
    assert [one.type for one in world.devices()] == ["H100", "H100"]


def test_a_partitioned_gpu_without_instances_is_known_and_not_to_be_used(world: World) -> None:
    world.partition(1, 0)
    world.start(gpus=2)
    found = {one.device_id: one.healthy for one in world.devices()}
    assert found == {FIRST: True, SECOND: False}
    reading = world.read()[SECOND]
    assert reading.fault_code == "NO_INSTANCES"
    assert "has no instances" in reading.fault


def test_a_gpu_that_is_lost_takes_its_instances_with_it(world: World) -> None:
    world.partition(1, 2)
    world.start(gpus=2)
    world.lose()
    readings = world.read()
    assert readings[FIRST].fault == ""
    assert {readings[id].fault_code for id in INSTANCES[:2]} == {"DEVICE_LOST"}
    assert [one.device_id for one in world.devices()] == [FIRST, *INSTANCES[:2]]


def test_a_gpu_that_hangs_is_at_fault_with_all_its_instances_and_comes_back(world: World) -> None:
    world.partition(1, 2)
    world.start(gpus=2)
    world.read()
    world.hang(True)
    readings = world.read()
    assert {readings[id].fault_code for id in INSTANCES[:2]} == {"NOT_ANSWERING"}
    assert readings[FIRST].fault == ""
    world.hang(False)
    for _ in range(60):
        readings = world.read()
        if not any(reading.fault for reading in readings.values()):
            break
    assert {reading.fault for reading in readings.values()} == {""}
