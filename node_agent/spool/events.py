"""The events that a training process writes: JSON lines, checked and typed. Pure."""

from __future__ import annotations

import json
import math
from typing import Annotated

import msgspec

from node_agent.spool.levels import LEVELS, Level

MAX_EVENT_BYTES = 64 * 1024
MAX_PATH_CHARS = 4096
MAX_VALUES = 1000
_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

_Step = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Number = float | str


class Metrics(msgspec.Struct, tag_field="event", tag="metrics"):
    """Values at a step; a number that JSON cannot hold is spelled (`NaN`, `Infinity`)."""

    step: _Step
    values: dict[str, _Number]
    epoch: _Number | None = None

    def numbers(self) -> dict[str, float]:
        """All values as floats; ValueError names one that is no number, or says there are too many."""
        if len(self.values) > MAX_VALUES:
            raise ValueError(f"metrics: there are more than {MAX_VALUES} values")
        return {name: as_number(name, value) for name, value in self.values.items()}


class Progress(msgspec.Struct, tag_field="event", tag="progress"):
    """How much is done, as a fraction of 1, and the seconds to go where known."""

    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)]
    eta_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Saved(msgspec.Struct, tag_field="event", tag="checkpoint"):
    """A checkpoint was written, complete, at `path`."""

    step: _Step
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATH_CHARS)]


class Message(msgspec.Struct, tag_field="event", tag="log"):
    """A line for the log at a level of its own."""

    message: str
    level: str = "INFO"

    def severity(self) -> Level:
        """The level; ValueError where there is no such one."""
        name = self.level.lower()
        if name not in LEVELS:
            raise ValueError(f"there is no level {self.level[:32]!r}")
        return LEVELS[name]


class Done(msgspec.Struct, tag_field="event", tag="done"):
    """The job's work is complete."""


class Unknown(msgspec.Struct):
    """An event of a kind that this agent does not know."""

    event: str


Event = Metrics | Progress | Saved | Message | Done | Unknown
_KNOWN: msgspec.json.Decoder[Event] = msgspec.json.Decoder(
    Metrics | Progress | Saved | Message | Done
)
_ANY = msgspec.json.Decoder(Unknown)
_KINDS = {"metrics", "progress", "checkpoint", "log", "done"}


def parse(line: bytes) -> Event:
    """The event on a line; ValueError says what is wrong with it."""
    try:
        return _KNOWN.decode(line)
    except msgspec.ValidationError as error:
        try:
            other = _ANY.decode(line)
        except msgspec.ValidationError:
            raise ValueError("it is no object with a field `event`") from None
        if other.event in _KINDS:
            raise ValueError(f"{other.event}: {error}") from None
        return other
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        spelled = _spelled(line)
        if spelled is None:
            raise ValueError(f"it is not JSON: {error}") from None
        return parse(spelled)


def _spelled(line: bytes) -> bytes | None:
    """The line with its bare NaN and Infinity, as Python's json writes a loss that diverged, spelled as
    texts; None where it has none, or is not JSON all the same."""
    bare = False

    def text(constant: str) -> str:
        nonlocal bare
        bare = True
        return constant

    try:
        value = json.loads(line, parse_constant=text)
    except (ValueError, RecursionError):
        return None
    return json.dumps(value).encode() if bare else None


def as_number(name: str, value: float | str) -> float:
    """`value` as a float; ValueError naming it where it is neither finite nor a spelled number."""
    number = _SPELLED.get(value) if isinstance(value, str) else value
    if number is None or (not isinstance(value, str) and not math.isfinite(value)):
        raise ValueError(f"{name[:64]!r} is not a number: {value!r:.64}")
    return number
