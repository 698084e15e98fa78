"""The files of a recorded workload, cell by cell: what is wrong with one is said with its file, line and field.

    jobs : job_id,submit_s,duration_s,gpus,cpus,mem_gb,gpu_type,user_or_vc,status
    nodes: node,gpus,gpu_type,cpus,mem_gb

CSV with a header line, gzip or plain, columns in any order. An empty cell, or a column that is not there, means
that the source does not say: a job asks for nothing of it then, and a node has more than anybody asks for.
Amounts of CPU are counted in thousandths of a core, as rows may have parts of one.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30
CPU_SCALE = 1_000  # thousandths of a core
AMPLE = 1 << 60  # what a node has of something that its row does not tell
NO_TYPE = "GPU"  # of devices whose type is not told
MOST = 4e9  # of anything; in seconds these are 126 years
MOST_DEVICES = 10_000  # of a node
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file."""

    file: str
    line: int
    cells: dict[str, str]

    def text(self, field: str) -> str:
        """A cell, "" where the source does not say."""
        return self.cells.get(field, "")

    def number(self, field: str, *, least: float = 0.0) -> float | None:
        """A cell that is a number, None where the source does not say. Raises ValueError."""
        text = self.text(field)
        if not text:
            return None
        try:
            found = float(text)
        except ValueError:
            raise self.wrong(field, f"{text[:40]!r} is no number") from None
        if not math.isfinite(found) or not least <= found <= MOST:
            raise self.wrong(field, f"{text[:40]} is not from {least:g} to {MOST:g}")
        return found

    def wrong(self, field: str, what: str) -> ValueError:
        """The error that names this row."""
        return ValueError(f"{self.file}, line {self.line}, {field}: {what}")

    @property
    def cpu_milli(self) -> int | None:
        """CPUs in thousandths of a core."""
        cpus = self.number("cpus")
        return None if cpus is None else round(cpus * CPU_SCALE)

    @property
    def memory_bytes(self) -> int | None:
        """Memory of the machine or the job."""
        gib = self.number("mem_gb")
        return None if gib is None else int(gib * GIB)

    @property
    def types(self) -> list[str]:
        """The device types that a job accepts, each once; none is any."""
        return [*dict.fromkeys(filter(None, map(str.strip, self.text("gpu_type").split("|"))))]


@dataclass(frozen=True, slots=True)
class Machine:
    """A row of a file of nodes."""

    name: str
    device_count: int
    device_type: str
    cpu_milli: int
    memory_bytes: int


def machines(path: Path, *, count: int = 0) -> list[Machine]:
    """The first so many nodes, 0 is all. Raises ValueError and OSError."""
    found: dict[str, Machine] = {}
    for row in rows(path, required=("gpus",)):
        name = row.text("node") or f"line-{row.line}"
        if name in found:
            raise row.wrong("node", f"{name[:40]} is there already")
        if not count or len(found) < count:
            found[name] = _machine(row, name)
    if not any(one.device_count for one in found.values()):
        raise ValueError(f"{path.name}, gpus: no node has any")
    return [*found.values()]


def _machine(row: Row, name: str) -> Machine:
    devices = row.number("gpus") or 0.0
    if not devices.is_integer() or devices > MOST_DEVICES:
        raise row.wrong("gpus", f"{devices:g} is no number of devices up to {MOST_DEVICES}")
    cpu_milli, memory_bytes = row.cpu_milli, row.memory_bytes
    return Machine(
        name=name,
        device_count=int(devices),
        device_type=row.text("gpu_type") or NO_TYPE,
        cpu_milli=AMPLE if cpu_milli is None else cpu_milli,
        memory_bytes=AMPLE if memory_bytes is None else memory_bytes,
    )


def rows(path: Path, *, required: Sequence[str]) -> Iterator[Row]:
    """What stands below the header line. Raises ValueError and OSError."""
    line = 0
    fields: list[str] = []
    try:
        for line, cells in _lines(path):
            if not fields:
                fields = cells
                missing = [field for field in required if field not in fields]
                if missing:
                    raise ValueError(f"{path.name}, line {line}, {missing[0]}: no such column")
            elif len(cells) > len(fields):
                raise ValueError(f"{path.name}, line {line}: more cells than the header line has")
            elif any(cells):
                yield Row(path.name, line, dict(zip(fields, cells, strict=False)))
    except (csv.Error, UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path.name}, after line {line}: {error}") from None
    if not fields:
        raise ValueError(f"{path.name}, line 1, {required[0]}: the file is empty")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open("rb") as raw:
        plain = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == GZIP_MAGIC else raw
        with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text)
            for cells in reader:
                yield reader.line_num, [cell.strip() for cell in cells]
