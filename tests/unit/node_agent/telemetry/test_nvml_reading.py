"""What NVML tells beside the first four: clocks, throttling, errors of memory, links, processes, XIDs."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

from node_agent.telemetry.nvml import NvmlProbe
from node_agent.telemetry.nvml_reading import throttles
from tests.contract.probes.stand_in import StandIn

FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-{i:012}" for i in range(2))


class Rich(StandIn):
    """Answers all questions of an H100 but those of MIG, which it refuses."""

    def __init__(self) -> None:
        super().__init__(2)
        self.events: deque[tuple[int, int]] = deque()
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

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[object]:
        return [object()]

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
        device, xid = self.events.popleft()
        return SimpleNamespace(device=device, eventData=xid)


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
    assert (reading.remap_pending, reading.remap_failed) == (True, False)
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
