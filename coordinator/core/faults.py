"""What a fault of a device means: NVIDIA's XIDs, and what an agent finds by itself.

The classes follow NVIDIA's table of XID actions and its health checks. 13 and 31 mostly come from what a
user wrote: to take a device out for them would let one user empty a cluster. So what a program can cause
is counted, and what only hardware or its driver can is proof.

Rules of this file: one table. An agent tells codes and counts; what they mean is decided here alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

POINT = 1000


@dataclass(frozen=True, slots=True)
class _Weight:
    points: int
    is_proof: bool  # of a fault that is not the job's
    takes_node: bool = False  # out, not the device alone


class Severity(Enum):
    """What follows from a fault."""

    NOTED = _Weight(0, is_proof=False)
    COUNTED = _Weight(POINT, is_proof=False)
    TROUBLE = _Weight(4 * POINT, is_proof=True)
    DEVICE_OUT = _Weight(8 * POINT, is_proof=True)
    NODE_OUT = _Weight(8 * POINT, is_proof=True, takes_node=True)

    @property
    def points(self) -> int:
        """That it adds, in thousandths."""
        return self.value.points

    @property
    def is_proof(self) -> bool:
        """Whether enough of it takes something out."""
        return self.value.is_proof

    @property
    def takes_node(self) -> bool:
        """Whether it speaks against the node, not only against the device."""
        return self.value.takes_node


@dataclass(frozen=True, slots=True)
class Fault:
    """What an agent has seen of a device since it started: how often, and what it said last."""

    code: str
    count: int
    text: str = ""


UNHEALTHY = "DEVICE_UNHEALTHY"
MISSING = "DEVICE_MISSING"
HARDWARE = "GPU_HARDWARE"

_XIDS: dict[Severity, tuple[int, ...]] = {
    Severity.NODE_OUT: (79, 160),
    Severity.DEVICE_OUT: (
        *(46, 48, 62, 64, 74, 95, 109, 110, 119, 120, 136, 140, 143),
        *range(144, 151),
        *(155, 156, 158),
    ),
    Severity.COUNTED: (8, 11, 13, 31, 32, 39, 40, 41, 60, *range(68, 73), 94),
    Severity.NOTED: (14, 37, 38, 43, 44, 45, 63, 66, 67, 92, 93, 121),
}
_OTHERS: dict[str, Severity] = {
    "DEVICE_LOST": Severity.NODE_OUT,  # it has fallen off the bus
    "NOT_ANSWERING": Severity.TROUBLE,  # a call of the driver hangs
    "UNREADABLE": Severity.TROUBLE,
    UNHEALTHY: Severity.TROUBLE,
    MISSING: Severity.TROUBLE,
    HARDWARE: Severity.COUNTED,  # by what a job printed
    "ROW_REMAP_FAILED": Severity.DEVICE_OUT,
    "ROW_REMAP_PENDING": Severity.NOTED,
    "NO_INSTANCES": Severity.NOTED,  # an admin is about to partition the GPU
    "SRAM_ECC": Severity.DEVICE_OUT,
    "ECC_UNCORRECTED": Severity.COUNTED,
    "THERMAL_SLOWDOWN": Severity.COUNTED,
    "POWER_BRAKE": Severity.NOTED,
    "PCIE_DEGRADED": Severity.COUNTED,
    "NVLINK_ERRORS": Severity.COUNTED,
}
TABLE: dict[str, Severity] = _OTHERS | {
    f"XID_{number}": severity for severity, numbers in _XIDS.items() for number in numbers
}


def severity_of(code: str) -> Severity:
    """What follows from a fault. An XID that the table does not have takes the device out."""
    unknown = Severity.DEVICE_OUT if code.startswith("XID_") else Severity.COUNTED
    return TABLE.get(code, unknown)
