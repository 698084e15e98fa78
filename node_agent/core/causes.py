"""What the last lines of a rank say of why it failed: one table.

A rank that fails says why at the end of its stderr: the last line of a Python traceback, the first
one of a library that gives up. So the newest line that says anything decides. It is a program's own
word: it tells people where to look, and what rules of retries go by; it proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum


class Category(StrEnum):
    """Kinds of faults that an agent finds; the names are those of the protocol."""

    USER_CODE = "USER_CODE"
    GPU_OOM = "GPU_OOM"
    HOST_OOM = "HOST_OOM"
    GPU_HARDWARE = "GPU_HARDWARE"
    NETWORK = "NETWORK"
    STORAGE = "STORAGE"
    IMAGE = "IMAGE"
    NODE_LOST = "NODE_LOST"
    CONFIG = "CONFIG"


TABLE: dict[Category, tuple[str, ...]] = {
    Category.GPU_OOM: (
        r"\bOutOfMemoryError: (CUDA|HIP|XPU)\b",
        r"\btorch(\.cuda)?\.OutOfMemoryError\b",
        r"\b(CUDA|HIP) out of memory\b",
        r"\b(CUDA|HIP) error: out of memory\b",
        r"\bcudaErrorMemoryAllocation\b",
        r"\bCU(BLAS|DNN|SOLVER)_STATUS_ALLOC_FAILED\b",
        r"\bRESOURCE_EXHAUSTED: Out of memory\b",
    ),
    Category.GPU_HARDWARE: (
        r"\buncorrectable (NVLink|ECC) error\b",
        r"\bcudaError(ECCUncorrectable|NvlinkUncorrectable|HardwareStackError|DevicesUnavailable)\b",
        r"\bGPU (has fallen off the bus|is lost)\b",
        r"\bCUDA error: (hardware stack error|all CUDA-capable devices are busy or unavailable)",
        r"\bCUDA error: CUDA-capable device\(s\) is/are busy or unavailable",
    ),
    Category.HOST_OOM: (
        r"^MemoryError\b",
        r"\bDefaultCPUAllocator: (can't allocate|not enough) memory",
        r"\bnumpy\..*ArrayMemoryError\b",
        r"\[Errno 12\]",
        r"\bstd::bad_alloc\b",
        r"\bDataLoader worker \(pid.*\) is killed by signal: (Killed|Bus error)",
        r"\binsufficient shared memory \(shm\)",
    ),
    Category.STORAGE: (
        r"\[Errno (5|28|30|116|122)\]",
        r"\bNo space left on device\b",
        r"\bDisk quota exceeded\b",
        r"\bStale file handle\b",
        r"\bos error (5|28|30|116|122)\b",
    ),
    Category.NETWORK: (
        r"\bDist(Network|Store|Backend)Error\b",
        r"\bnccl(SystemError|RemoteError|InternalError)\b",
        r"\bNCCL (error|WARN .*(Connection|socket|timed out))",
        r"\bWatchdog caught collective operation timeout\b",
        r"\bgloo/transport/tcp\b",
        r"\bGloo connectFullMesh failed\b",
        r"\bThe client socket has (failed|timed out)\b",
        r"\bConnection closed by peer \[",
        r"\[Errno (101|110|113)\]",
    ),
}
_KNOWN = {
    category: re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    for category, patterns in TABLE.items()
}


def category_of(lines: Sequence[str]) -> Category:
    """What kind of fault the last lines of a rank, oldest first, tell of; USER_CODE where of none."""
    for line in reversed(lines):
        for category, known in _KNOWN.items():
            if known.search(line):
                return category
    return Category.USER_CODE
