"""What NVML tells beside the first four: clocks, throttling, errors of memory, links, processes, XIDs."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest

from node_agent.telemetry.nvml import NvmlProbe
from node_agent.telemetry.nvml_reading import throttles
from tests.contract.probes.stand_in import Handle, StandIn

FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-{i:012}" for i in range(2))


class Rich(StandIn):
    """Answers all questions of an H100 but those of MIG, which it refuses."""

    def __init__(self) -> None:
        super().__init__(2)
        self.events: deque[tuple[int, ...]] = deque()
        self.watched: list[int] = []

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return 700_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return 5_000_000

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return 0x1 | 0x4 | 0x40

    def nvmlDeviceGetTotalEccErrors(self, handle: int, kind: int, counter: int) -> int:
        return {0: 12, 1: 3}[kind]

    def nvmlDeviceGetRemappedRows(self, handle: int) -> tuple[int, int, int, int]:
        return (1, 2, 1, 0)

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: int) -> int:
        return 5

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: int) -> int:
        return 8

    def nvmlDeviceGetMaxPcieLinkWidth(self, handle: int) -> int:
        return 16

    def nvmlDeviceGetPcieReplayCounter(self, handle: int) -> int:
        return 4

    def nvmlDeviceGetPcieThroughput(self, handle: int, way: int) -> int:
        return {0: 100, 1: 200}[way]

    def nvmlDeviceGetNvLinkState(self, handle: int, link: int) -> int:
        if link > 2:
            raise self.NVMLError(2)
        return int(link != 1)

    def nvmlDeviceGetNvLinkErrorCounter(self, handle: int, link: int, counter: int) -> int:
        return link + counter

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> list[object]:
        return [object()]

    c_nvmlEccSramErrorStatus_v1_t = SimpleNamespace

    def nvmlDeviceGetSramEccErrorStatus(self, handle: int, status: SimpleNamespace) -> int:
        status.bThresholdExceeded = 1
        return 0

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        raise self.NVMLError(self.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetFieldValues(self, handle: int, fields: list[int]) -> list[object]:
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=77))]

    def nvmlEventSetCreate(self) -> object:
        return object()

    def nvmlDeviceRegisterEvents(self, handle: int, kinds: int, events: object) -> None:
        self.watched.append(handle)

    def nvmlEventSetWait_v2(self, events: object, timeout_ms: int) -> SimpleNamespace:
        assert timeout_ms == 0
        if not self.events:
            raise self.NVMLError(10)
        device, xid, *instance = self.events.popleft()
        return SimpleNamespace(
            device=device, eventData=xid, gpuInstanceId=instance[0] if instance else 0xFFFFFFFF
        )


def test_everything_that_a_gpu_tells_is_read() -> None:
    probe = NvmlProbe(Rich())
    reading = probe.read()[FIRST]
    probe.close()
    assert (reading.power_limit_watts, reading.energy_joules) == (700.0, 5000.0)
    assert (reading.sm_clock_mhz, reading.memory_clock_mhz) == (1980, 2619)
    assert (reading.memory_utilization_percent, reading.memory_temperature_celsius) == (20, 77)
    assert reading.throttle_reasons == ("SW_POWER_CAP", "HW_THERMAL_SLOWDOWN")
    assert (reading.ecc_corrected_count, reading.ecc_uncorrected_count) == (12, 3)
    assert (reading.remapped_corrected_count, reading.remapped_uncorrected_count) == (1, 2)
    assert (reading.remap_pending, reading.remap_failed, reading.sram_worn) == (True, False, True)
    assert (reading.pcie_generation, reading.pcie_width, reading.pcie_width_max) == (5, 8, 16)
    assert (reading.pcie_replays_count, reading.pcie_sent_bytes_per_second) == (4, 100_000)
    assert reading.pcie_received_bytes_per_second == 200_000
    assert (reading.nvlink_active_count, reading.nvlink_errors_count) == (2, 20)
    assert (reading.processes_count, reading.mig_enabled) == (1, None)
    assert (reading.fault, reading.xids) == ("", ())


def test_errors_that_the_driver_tells_are_taken_once_and_of_their_gpu() -> None:
    library = Rich()
    probe = NvmlProbe(library)
    assert library.watched == [0, 1]
    library.events.extend([(1, 79), (0, 13), (1, 48)])
    readings = probe.read()
    assert (readings[FIRST].xids, readings[SECOND].xids) == ((13,), (79, 48))
    assert probe.read()[SECOND].xids == ()
    probe.close()


INSTANCES = [f"MIG-00000000-0000-0000-0001-{i:012}" for i in range(2)]


class Split(Rich):
    """The same, and GPU 1 is partitioned into two instances, whose numbers are 7 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.instances = {1: 2}

    def nvmlDeviceGetMigMode(self, handle: int) -> list[int]:
        return [int(handle in self.instances)] * 2


def test_an_instance_tells_how_its_gpu_is_and_nothing_that_is_drawn_from_all_of_it() -> None:
    probe = NvmlProbe(Split())
    reading = probe.read()[INSTANCES[1]]
    probe.close()
    assert reading.ecc_uncorrected_count == 3
    assert reading.throttle_reasons == ("SW_POWER_CAP", "HW_THERMAL_SLOWDOWN")
    assert (reading.remap_pending, reading.pcie_width, reading.sm_clock_mhz) == (True, 8, 1980)
    drawn = (reading.utilization_percent, reading.power_watts, reading.energy_joules)
    linked = (reading.pcie_sent_bytes_per_second, reading.nvlink_active_count)
    assert {*drawn, *linked, reading.nvlink_errors_count} == {None}


def test_an_error_of_a_gpu_is_of_all_its_instances_unless_the_driver_tells_of_which() -> None:
    library = Split()
    probe = NvmlProbe(library)
    library.events.extend([(1, 79), (1, 13, 8), (1, 31, 99), (0, 48)])
    readings = probe.read()
    probe.close()
    assert readings[INSTANCES[0]].xids == (79, 31)
    assert readings[INSTANCES[1]].xids == (79, 13, 31)
    assert readings[FIRST].xids == (48,)


def test_what_a_partitioned_gpu_keeps_from_others_than_root_is_no_fault() -> None:
    class Secretive(Split):
        def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> SimpleNamespace:
            if handle in self.instances:
                raise self.NVMLError(4)
            return super().nvmlDeviceGetMemoryInfo(handle)

    probe = NvmlProbe(Secretive())
    readings = probe.read()
    assert [readings[id].fault for id in INSTANCES] == ["", ""]
    assert {one.type for one in probe.devices()} == {"H100", "H100-1g.10gb"}
    probe.close()


@pytest.mark.parametrize(
    ("attributes", "whole_gib", "profile"),
    [
        ((1, 1, 9856), 80, "1g.10gb"),
        ((2, 2, 20096), 80, "2g.20gb"),
        ((3, 3, 40448), 80, "3g.40gb"),
        ((7, 7, 81152), 80, "7g.80gb"),
        ((1, 1, 4864), 40, "1g.5gb"),
        ((3, 1, 40448), 80, "1c.3g.40gb"),
        ((1, 1, 16 << 10), 141, "1g.18gb"),
        ((1, 1, 9856), 0, "1g.10gb"),
    ],
)
def test_a_profile_that_the_name_does_not_say_follows_from_what_the_instance_has(
    attributes: tuple[int, int, int], whole_gib: int, profile: str
) -> None:
    slices, compute, memory_mb = attributes

    class Nameless(Split):
        def nvmlDeviceGetName(self, handle: Handle) -> str:
            return "NVIDIA H100"

        def nvmlDeviceGetAttributes(self, handle: Handle) -> SimpleNamespace:
            return SimpleNamespace(
                gpuInstanceSliceCount=slices,
                computeInstanceSliceCount=compute,
                memorySizeMB=memory_mb,
            )

        def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> SimpleNamespace:
            if isinstance(handle, int):
                return SimpleNamespace(total=whole_gib << 30, used=0)
            return super().nvmlDeviceGetMemoryInfo(handle)

    probe = NvmlProbe(Nameless())
    assert probe.devices()[1].type == f"H100-{profile}"
    assert probe.devices()[1].model == f"NVIDIA H100 MIG {profile}"
    probe.close()


def test_a_gpu_that_is_lost_says_so_by_its_code() -> None:
    library = Rich()
    probe = NvmlProbe(library)
    library.lost = True
    reading = probe.read()[SECOND]
    probe.close()
    assert reading.fault_code == "DEVICE_LOST"
    assert reading.fault


def test_an_idle_gpu_is_not_throttled() -> None:
    assert throttles(0x1) == ()
    assert throttles(None) == ()
