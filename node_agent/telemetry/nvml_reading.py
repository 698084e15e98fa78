"""Everything that NVML tells of one GPU, in one call that a guard makes.

Memory, utilization, power and temperature are what a GPU must answer for: an error of these is its fault.
The rest is asked as far as this GPU and this driver know it; only that the GPU is lost counts there. A GPU
that is partitioned (MIG) may keep from who is not root what is of the whole of it: that is no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from node_agent.telemetry.probe import Reading

NO_PERMISSION, GPU_IS_LOST = 4, 15
MIG_ENABLED = 1
CORRECTED, UNCORRECTED, SINCE_LOAD = 0, 1, 0
SM_CLOCK, MEMORY_CLOCK = 1, 2
SENT, RECEIVED = 0, 1
MEMORY_TEMPERATURE_FIELD = 82
NVLINKS_MAX, NVLINK_COUNTERS = 18, 4
THROTTLES = {
    0x4: "SW_POWER_CAP",
    0x8: "HW_SLOWDOWN",
    0x20: "SW_THERMAL_SLOWDOWN",
    0x40: "HW_THERMAL_SLOWDOWN",
    0x80: "HW_POWER_BRAKE",
}
Question = Callable[[], Any]


class Ask:
    """Reads one GPU; what the GPU cannot measure is left out."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._nvml = library
        self._handle = handle
        self._mismatch = getattr(library, "NVMLLibraryMismatchError", library.NVMLError)
        self._fault = ""
        self._code = ""
        self._is_partitioned = False

    def __call__(self) -> Reading:
        handle, nvml = self._handle, self._nvml
        mig = self._may("MigMode")
        self._is_partitioned = mig is not None and mig[0] == MIG_ENABLED
        memory = self._must(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        busy = self._must(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        milliwatts = self._must(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        celsius = self._must(
            lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        )
        more = self._more()
        return Reading(
            utilization_percent=None if busy is None else float(busy.gpu),
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            power_watts=None if milliwatts is None else milliwatts / 1000,
            temperature_celsius=None if celsius is None else float(celsius),
            memory_utilization_percent=None if busy is None else float(busy.memory),
            mig_enabled=None if mig is None else self._is_partitioned,
            fault=self._fault,
            fault_code=self._code,
            **more,
        )

    def _more(self) -> dict[str, Any]:
        limit, energy = self._may("EnforcedPowerLimit"), self._may("TotalEnergyConsumption")
        rows = self._may("RemappedRows") or (None, None, None, None)
        processes = self._may("ComputeRunningProcesses")
        active, errors = self._nvlinks()
        return {
            "power_limit_watts": None if limit is None else limit / 1000,
            "energy_joules": None if energy is None else energy / 1000,
            "memory_temperature_celsius": self._memory_celsius(),
            "sm_clock_mhz": self._may("ClockInfo", SM_CLOCK),
            "memory_clock_mhz": self._may("ClockInfo", MEMORY_CLOCK),
            "throttle_reasons": throttles(self._may("CurrentClocksThrottleReasons")),
            "ecc_corrected_count": self._may("TotalEccErrors", CORRECTED, SINCE_LOAD),
            "ecc_uncorrected_count": self._may("TotalEccErrors", UNCORRECTED, SINCE_LOAD),
            "remapped_corrected_count": rows[0],
            "remapped_uncorrected_count": rows[1],
            "remap_pending": None if rows[2] is None else bool(rows[2]),
            "remap_failed": None if rows[3] is None else bool(rows[3]),
            "pcie_generation": self._may("CurrPcieLinkGeneration"),
            "pcie_width": self._may("CurrPcieLinkWidth"),
            "pcie_width_max": self._may("MaxPcieLinkWidth"),
            "pcie_replays_count": self._may("PcieReplayCounter"),
            "pcie_sent_bytes_per_second": _bytes(self._may("PcieThroughput", SENT)),
            "pcie_received_bytes_per_second": _bytes(self._may("PcieThroughput", RECEIVED)),
            "nvlink_active_count": active,
            "nvlink_errors_count": errors,
            "sram_worn": self._sram_worn(),
            "processes_count": None if processes is None else len(processes),
        }

    def _nvlinks(self) -> tuple[int | None, int | None]:
        """(links that are up, errors of all of them)."""
        states = []
        for link in range(NVLINKS_MAX):
            state = self._may("NvLinkState", link)
            if state is None:
                break
            states.append(bool(state))
        if not states:
            return None, None
        counts = [
            self._may("NvLinkErrorCounter", link, counter)
            for link, is_up in enumerate(states)
            for counter in (range(NVLINK_COUNTERS) if is_up else ())
        ]
        known = [count for count in counts if count is not None]
        return sum(states), sum(known) if known else None

    def _sram_worn(self) -> bool | None:
        make = getattr(self._nvml, "c_nvmlEccSramErrorStatus_v1_t", None)
        if make is None:
            return None
        status = make()
        told = self._may("SramEccErrorStatus", status)
        return None if told is None else bool(status.bThresholdExceeded)

    def _memory_celsius(self) -> float | None:
        found = self._may("FieldValues", [MEMORY_TEMPERATURE_FIELD])
        if not found or found[0].nvmlReturn:
            return None
        return float(found[0].value.uiVal)

    def _must(self, question: Question) -> Any:
        if self._fault:
            return None
        try:
            return question()
        except self._nvml.NVMLError as error:
            unmeasured = (
                self._nvml.NVML_ERROR_NOT_SUPPORTED,
                self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            )
            hidden = self._is_partitioned and error.value == NO_PERMISSION
            if error.value not in unmeasured and not hidden:
                self._note(error)
            return None

    def _may(self, name: str, *more: Any) -> Any:
        question = getattr(self._nvml, f"nvmlDeviceGet{name}", None)
        if self._fault or question is None:
            return None
        try:
            return question(self._handle, *more)
        except self._nvml.NVMLError as error:
            if error.value == GPU_IS_LOST:
                self._note(error)
            return None
        except self._mismatch:  # the library is older than pynvml for this question
            return None

    def _note(self, error: Any) -> None:
        self._fault = str(error)
        self._code = "DEVICE_LOST" if error.value == GPU_IS_LOST else "UNREADABLE"


def throttles(mask: int | None) -> tuple[str, ...]:
    """Names of the reasons for lower clocks; to be idle is none."""
    return tuple(name for bit, name in THROTTLES.items() if mask and mask & bit)


def throttle_bits(reasons: Iterable[str]) -> int:
    """The same as NVML's bits."""
    names = {name: bit for bit, name in THROTTLES.items()}
    return sum(names.get(reason, 0) for reason in reasons)


def _bytes(kilobytes: int | None) -> int | None:
    return None if kilobytes is None else kilobytes * 1000
