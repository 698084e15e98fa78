"""The formats: whether a content is what its format says, and how many samples it holds."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, cast

import msgspec

from coordinator.data.reading import Reading
from coordinator.data.terms import MIB, Unparseable

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".py": "text",
}
FIELD_CHARACTERS_MAX = 16 * MIB
FIRST_ROWS = 64
NAME_MAX = 64
_BOM = b"\xef\xbb\xbf"

Parser = Callable[[Reading, Sequence[str]], int]


def parser_of(name: str) -> Parser:
    """The parser of a format: takes a reading and columns that must be there, answers samples.

    Raises:
        Unparseable: there is no such format, or none is known.
    """
    if not name:
        raise Unparseable("its name does not tell the format; say which it is")
    try:
        return PARSERS[name]
    except KeyError:
        raise Unparseable(f"the format must be one of {', '.join(PARSERS)}") from None


def jsonl(reading: Reading, columns: Sequence[str]) -> int:
    """One JSON value on each line that is not blank."""
    decode = msgspec.json.Decoder().decode
    count = 0
    for number, line in enumerate(reading.lines(), 1):
        text = line.removeprefix(_BOM) if number == 1 else line
        if not text.strip():
            continue
        try:
            value: Any = decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Unparseable(f"line {number} is not JSON") from None
        if columns:
            _demand(value if isinstance(value, dict) else {}, columns, f"line {number}")
        count += 1
    return count


def csv_(reading: Reading, columns: Sequence[str]) -> int:
    """A header, and as many fields on each row; quoted as RFC 4180 says."""
    csv.field_size_limit(FIELD_CHARACTERS_MAX)
    rows = csv.reader(_with_ends(_utf8(reading)), strict=True)
    header: list[str] | None = None
    count = 0
    try:
        for row in rows:
            if not row:
                continue
            if header is None:
                header = row
                _demand(header, columns, "the header")
            elif len(row) != len(header):
                raise Unparseable(
                    f"line {rows.line_num} has {len(row)} fields, the header has {len(header)}"
                )
            else:
                count += 1
    except csv.Error:
        # The budget may have cut a quoted field in two: then the rest is not known to be bad.
        if not reading.budget.is_cut:
            raise Unparseable(f"line {rows.line_num} is not CSV") from None
    if header is None:
        raise Unparseable("there is no header")
    return count


def text(reading: Reading, columns: Sequence[str]) -> int:
    """UTF-8; a sample is a line that is not blank."""
    return sum(1 for line in _utf8(reading) if line.strip())


def parquet(reading: Reading, columns: Sequence[str]) -> int:
    """Rows as the file's own metadata counts them; the first ones are read as well."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise Unparseable("parquet needs the extra `parquet` where the coordinator runs") from None
    with tempfile.TemporaryFile() as copy:
        file = _seekable(reading, copy)
        try:
            opened = ParquetFile(file)
            names, count = opened.schema_arrow.names, opened.metadata.num_rows
            next(opened.iter_batches(batch_size=FIRST_ROWS), None)
        except (ArrowException, OSError, ValueError, MemoryError):
            raise Unparseable("it is not Parquet, or is damaged") from None
    _demand(names, columns, "the schema")
    return int(count)


def _seekable(reading: Reading, copy: IO[bytes]) -> IO[bytes]:
    """The file itself where it can seek, else a copy of it."""
    seekable = getattr(reading.stream, "seekable", None)
    if seekable is not None and seekable():
        return cast("IO[bytes]", reading.stream)
    for piece in reading.pieces():
        copy.write(piece)
    if reading.budget.is_cut:
        raise Unparseable("it is too large to be checked from where it is")
    copy.seek(0)
    return copy


def _utf8(reading: Reading) -> Iterator[str]:
    for number, line in enumerate(reading.lines(), 1):
        whole = line.removeprefix(_BOM) if number == 1 else line
        if b"\0" in whole:
            raise Unparseable(f"line {number} is not text")
        try:
            yield whole.decode()
        except UnicodeDecodeError:
            raise Unparseable(f"line {number} is not UTF-8") from None


def _with_ends(lines: Iterator[str]) -> Iterator[str]:
    return (f"{line}\n" for line in lines)


def _demand(present: Sequence[str] | dict[str, Any], columns: Sequence[str], where: str) -> None:
    missing = next((name for name in columns if name not in present), None)
    if missing is not None:
        raise Unparseable(f"{where} has no column {missing[:NAME_MAX]!r}")


PARSERS: dict[str, Parser] = {"jsonl": jsonl, "csv": csv_, "parquet": parquet, "text": text}
