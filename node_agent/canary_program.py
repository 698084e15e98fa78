"""The canary: devices compute, hold what is written into them, and add up together. A program of its own.

It runs under the Python that ranks run under, so it needs nothing but the standard library: torch is used
where it sees GPUs, numpy where it is there. On other devices the same is done by the processor: a stand-in of
the same shape, and a real computation. It reads one line of JSON, `{"devices": [...], "limit_s": N}`, and
writes one: `{"failures": {device: why}, "ran_on": "..."}`; the failure of all together stands under "".
"""

from __future__ import annotations

import json
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

SIZE = 96  # of the matrices that plain Python multiplies
LARGE = 512  # of those that a library multiplies
MEMORY_BYTES = 64 << 20
PATTERNS = (0x00, 0xFF, 0x55, 0xAA)
Check = Callable[[], str]


def main() -> int:
    """Tries what it is told to; the exit code is 0 wherever it could say something."""
    asked = json.loads(sys.stdin.readline(1 << 20))
    signal.alarm(int(asked["limit_s"]))
    devices = [str(device) for device in asked["devices"]]
    torch, numpy = _library("torch"), _library("numpy")
    on_gpus = asked.get("gpus", False) and torch is not None and torch.cuda.is_available()
    on_gpus = on_gpus and torch.cuda.device_count() == len(devices)
    failures: dict[str, str] = {}
    for index, device in enumerate(devices):
        trials = _on_gpu(torch, index) if on_gpus else _on_processor(numpy, index)
        why = _first_fault(trials)
        if why:
            failures[device] = why
    together = (lambda: _reduce_on_gpus(torch)) if on_gpus else (lambda: _reduce(len(devices)))
    why = _first_fault([together]) if len(devices) > 1 else ""
    if why:
        failures[""] = why
    ran_on = "torch" if on_gpus else ("numpy" if numpy is not None else "python")
    print(json.dumps({"failures": failures, "ran_on": ran_on}))
    return 0


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except Exception:  # whatever is wrong with it, it is not there to be used
        return None


def _first_fault(trials: Sequence[Check]) -> str:
    """What the first trial that fails says; a trial that breaks has failed."""
    for trial in trials:
        try:
            why = trial()
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        if why:
            return why[:300]
    return ""


def _on_processor(numpy: Any, index: int) -> list[Check]:
    if numpy is None:
        return [lambda: _product(index), _memory]
    return [lambda: _product_of(numpy, index), lambda: _memory_of(numpy)]


def _product(seed: int) -> str:
    """(A B) x must be A (B x), to the last digit."""
    rng = random.Random(seed)
    left, right = ([[rng.randint(-9, 9) for _ in range(SIZE)] for _ in range(SIZE)] for _ in "ab")
    vector = [rng.randint(-9, 9) for _ in range(SIZE)]
    columns = list(zip(*right, strict=True))
    product = [[_dot(row, column) for column in columns] for row in left]
    inner = [_dot(row, vector) for row in right]
    same = [_dot(row, vector) for row in product] == [_dot(row, inner) for row in left]
    return "" if same else "a matrix product is wrong"


def _dot(row: Sequence[int], column: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(row, column, strict=True))


def _product_of(numpy: Any, seed: int) -> str:
    rng = numpy.random.default_rng(seed)
    left, right = (rng.integers(-9, 9, (LARGE, LARGE)).astype("float64") for _ in "ab")
    vector = rng.integers(-9, 9, LARGE).astype("float64")
    same = bool(((left @ right) @ vector == left @ (right @ vector)).all())
    return "" if same else "a matrix product is wrong"


def _memory() -> str:
    for pattern in PATTERNS:
        cells = bytearray([pattern]) * MEMORY_BYTES
        if cells.count(pattern) != MEMORY_BYTES:
            return f"memory does not hold {pattern:#04x}"
    return ""


def _memory_of(numpy: Any) -> str:
    for pattern in PATTERNS:
        cells = numpy.full(MEMORY_BYTES, pattern, dtype="uint8")
        if not bool((cells == pattern).all()):
            return f"memory does not hold {pattern:#04x}"
    return ""


def _on_gpu(torch: Any, index: int) -> list[Check]:
    device = torch.device("cuda", index)

    def product() -> str:
        rng = torch.Generator().manual_seed(index)
        shape = (4 * LARGE, 4 * LARGE)
        left, right = (torch.randint(-9, 9, shape, generator=rng).double() for _ in "ab")
        vector = torch.randint(-9, 9, shape[:1], generator=rng).double()
        found = (left.to(device) @ right.to(device)) @ vector.to(device)
        same = bool((found.cpu() == left @ (right @ vector)).all())
        return "" if same else "a matrix product is wrong"

    def memory() -> str:
        free, _ = torch.cuda.mem_get_info(device)
        for pattern in PATTERNS:
            cells = torch.full((free // 2,), pattern, dtype=torch.uint8, device=device)
            wrong = int((cells != pattern).sum())
            del cells
            if wrong:
                return f"{wrong} bytes of memory do not hold {pattern:#04x}"
        return ""

    return [product, memory]


def _reduce_on_gpus(torch: Any) -> str:
    count = torch.cuda.device_count()
    tensors = [torch.full((1 << 20,), float(i + 1), device=f"cuda:{i}") for i in range(count)]
    torch.cuda.nccl.all_reduce(tensors)
    expected = count * (count + 1) / 2
    wrong = [index for index, one in enumerate(tensors) if not bool((one == expected).all())]
    return f"devices {wrong} have another sum" if wrong else ""


def _reduce(count: int) -> str:
    """A ring: each passes on what it got, adds it up, and has the sum of all in the end."""
    links = [socket.socketpair() for _ in range(count)]
    length = 1 << 12
    sums: list[list[int]] = [[] for _ in range(count)]

    def work(rank: int) -> None:
        to, source = links[rank][0], links[rank - 1][1].makefile("rb")
        own = carried = [(rank + 1) * (n % 7) for n in range(length)]
        total = list(own)
        for _ in range(count - 1):
            sender = threading.Thread(
                target=to.sendall, args=(json.dumps(carried).encode() + b"\n",)
            )
            sender.start()
            carried = json.loads(source.readline())
            sender.join()
            total = [a + b for a, b in zip(total, carried, strict=True)]
        sums[rank] = total

    ranks = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    for one, other in links:
        one.close()
        other.close()
    expected = [count * (count + 1) // 2 * (n % 7) for n in range(length)]
    wrong = [index for index, one in enumerate(sums) if one != expected]
    return f"devices {wrong} have another sum" if wrong else ""


if __name__ == "__main__":
    sys.exit(main())
