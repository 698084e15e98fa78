"""Prints answers: JSON, YAML, or tables that are coloured on a terminal and plain elsewhere."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from scaimind.cli.shape import shape
from scaimind.cli.text import clean

if TYPE_CHECKING:
    from google.protobuf.message import Message

COLOURS = {
    "COMPLETED": "green",
    "READY": "green",
    "HEALTHY": "green",
    "TRAINING": "cyan",
    "CHECKPOINTING": "cyan",
    "EVALUATING": "cyan",
    "EXPORTING": "cyan",
    "PREPARING": "blue",
    "SCHEDULING": "blue",
    "QUEUED": "yellow",
    "PENDING": "yellow",
    "PAUSED": "yellow",
    "PREEMPTED": "magenta",
    "DRAINING": "magenta",
    "DRAINED": "magenta",
    "FAILED": "red",
    "UNREACHABLE": "red",
    "QUARANTINED": "red",
}


class Format(StrEnum):
    """Forms of output."""

    table = "table"
    json = "json"
    yaml = "yaml"


class Rows(NamedTuple):
    """A table: one header for each column, or none, and rows of as many cells."""

    headers: Sequence[str]
    cells: Iterable[Sequence[str]]
    title: str = ""
    note: str = ""


def is_terminal() -> bool:
    """Whether people look at the output: then it may have colour and move."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def has_colour() -> bool:
    """Whether the output may have colour."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def print_message(message: "Message", form: Format) -> None:
    """Prints a message as JSON or YAML."""
    print_value(shape(message), form)


def print_value(value: Any, form: Format) -> None:
    """Prints a plain value as JSON or YAML."""
    if form is Format.yaml:
        import yaml

        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
        sys.stdout.write(text)
    else:
        print(json.dumps(value, indent=2, ensure_ascii=False))


def print_event(value: dict[str, Any], form: Format) -> None:
    """Prints one event of a stream: a line of JSON, or a document of YAML."""
    if form is Format.yaml:
        import yaml

        sys.stdout.write("---\n" + yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    else:
        print(json.dumps(value, ensure_ascii=False))
    sys.stdout.flush()


def print_rows(rows: Rows) -> None:
    """Prints a table."""
    cells = [[clean(cell) for cell in row] for row in rows.cells]
    if rows.title:
        print(rows.title)
    if has_colour():
        _rich_table(rows.headers, cells)
    else:
        _plain_table(rows.headers, cells)
    if rows.note:
        print(rows.note)


def _plain_table(headers: Sequence[str], cells: list[list[str]]) -> None:
    lines = [list(headers), *cells] if headers else cells
    if not lines:
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def _rich_table(headers: Sequence[str], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = headers or [""] * (len(cells[0]) if cells else 0)
    table = Table(*columns, box=None, pad_edge=False, show_header=bool(headers))
    for row in cells:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    if columns:
        table.columns[0].no_wrap = True
        table.columns[0].style = "" if headers else "bold"
    Console().print(table)


def _style(cell: str) -> str:
    return COLOURS.get(cell.split(" ", 1)[0], "")
