"""The events file: JSON lines that the agent reads while the training goes on.

Each line is one write on a descriptor in append mode, so lines of several writers (threads,
forked children) never interleave, and no lock is needed that a fork or a signal could leave held.
"""

import json
import os
import sys
from collections.abc import Mapping
from math import isfinite, isnan
from operator import index
from pathlib import Path
from typing import SupportsFloat, SupportsIndex

MAX_LINE_BYTES = 64 * 1024


class EventFile:
    """Appends events to a file; drops them where the path is None.

    Training matters more than its report: a file that cannot be written is said once on stderr,
    and writing is tried again with each further event.
    """

    def __init__(self, path: Path | None) -> None:
        self._descriptor: int | None = None
        self._warned = False
        self._torn = False
        if path is None:
            return
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            self._warn(error)

    def write(self, event: Mapping[str, object]) -> None:
        """Append one event; ValueError when its line would be over MAX_LINE_BYTES."""
        text = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        line = text.encode("utf-8", "replace") + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(
                f"a {event.get('event')} event of {len(line)} bytes is over the limit of"
                f" {MAX_LINE_BYTES} bytes; report less at once"
            )
        if self._descriptor is not None:
            self._append(self._descriptor, line)

    def _append(self, descriptor: int, line: bytes) -> None:
        # A full disk can take the first part of a line. The next line then starts with a newline
        # of its own, so that the damage stays within the one that was cut.
        data = b"\n" + line if self._torn else line
        try:
            written = os.write(descriptor, data)
        except OSError as error:
            self._warn(error)
            return
        self._torn = written < len(data)
        if self._torn:
            self._warn(OSError(f"only {written} of {len(data)} bytes were written"))

    def _warn(self, error: OSError) -> None:
        if self._warned:
            return
        self._warned = True
        print(f"scaimind: events cannot be written, training goes on: {error}", file=sys.stderr)


def as_number(name: str, value: SupportsFloat) -> float | str:
    """A JSON value for a number, NaN and infinities spelled as protobuf's JSON does.

    Takes whatever has `__float__` (numpy scalars, tensors of one element); TypeError names it
    otherwise.
    """
    number = as_float(name, value)
    if isfinite(number):
        return number
    if isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def as_float(name: str, value: SupportsFloat) -> float:
    """`value` as a float; TypeError naming it where it is not one number."""
    if not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"{name} must be one number that fits a double: {error}") from error


def as_step(value: SupportsIndex) -> int:
    """`value` as a step number; ValueError outside 0 ... 2**63-1, TypeError for no integer."""
    step = index(value)
    if not 0 <= step < 2**63:
        raise ValueError(f"step must lie between 0 and 2**63-1, got {step}")
    return step
