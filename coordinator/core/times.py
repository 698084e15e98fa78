"""What the time of leased devices was used for: small values of the records, and how to add to them.

A lease's time is cut into days (UTC) and, within a day, into classes. Times are whole milliseconds; what
they cost is milliseconds times thousandths of devices, which is device-microseconds, so all sums are exact.

Rules of this file: values and arithmetic only; what class a moment is of is said in ledger.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

DAY_MS = 86_400_000
MOST_DAYS = 400  # that one attempt keeps apart; beyond, the oldest are one
MOST_LOSSES = 16  # that one job keeps apart; beyond, only their sum is known


class Use(IntEnum):
    """Classes; the value is the place in Spent."""

    STARTING = 0  # granted, and not every rank runs
    PRODUCTIVE = 1  # training
    CHECKPOINTING = 2
    REDONE = 3  # training of which no checkpoint was proven before the attempt ended: lost
    IDLE = 4  # nothing of use runs: it stops, or was given up and is not known to be free
    PAUSED = 5  # it stops because somebody pauses the job


class Spent(NamedTuple):
    """Amounts by class: milliseconds of one lease, or device-microseconds."""

    starting: int = 0
    productive: int = 0
    checkpointing: int = 0
    redone: int = 0
    idle: int = 0
    paused: int = 0


class Day(NamedTuple):
    """What one day (UTC, counted from 1970) gave; milliseconds."""

    day: int
    spent: Spent = Spent()


class Times(NamedTuple):
    """What the time since an attempt was granted was used for, up to a moment.

    The sum of all days is that moment less the grant.
    """

    until_ms: int = 0
    at_risk_ms: int = 0  # productive since the newest proven checkpoint
    worked_ms: int = 0  # the end of what was productive
    days: tuple[Day, ...] = ()


class Loss(NamedTuple):
    """What an attempt had done and lost: device-microseconds, and why."""

    attempt: int
    cause: str  # a StopCause
    cause_id: str  # of the job that took its place, or the node; "" where there is none
    is_foreign: bool  # whether that is a job of another tenant
    redone_us: int


def total(spent: Spent) -> int:
    """Of all classes."""
    return sum(spent)


def total_ms(days: Iterable[Day]) -> int:
    """Of all days and classes."""
    return sum(sum(day.spent) for day in days)


def used_ms(days: Iterable[Day], use: Use) -> int:
    """Of all days, one class."""
    return sum(day.spent[use] for day in days)


def summed(parts: Iterable[Spent]) -> Spent:
    """Class by class."""
    return Spent(*map(sum, zip(Spent(), *parts, strict=True)))


def times_milli(spent: Spent, milli: int) -> Spent:
    """Device-microseconds of milliseconds, for so many thousandths of devices."""
    return Spent(*(part * milli for part in spent))


def added(days: tuple[Day, ...], use: Use, *, from_ms: int, to_ms: int) -> tuple[Day, ...]:
    """With the time between two moments, each day its part.

    Where the clock was set back in between, as much is taken off again: from the newest.
    """
    if to_ms < from_ms:
        return _cut(days, from_ms - to_ms)
    found = list(days)
    while from_ms < to_ms:
        day = from_ms // DAY_MS
        end_ms = min(to_ms, (day + 1) * DAY_MS)
        _add(found, day, use=use, ms=end_ms - from_ms)
        from_ms = end_ms
    return tuple(_merged(found) if len(found) > MOST_DAYS else found)


def moved(days: tuple[Day, ...], *, before: Use, after: Use, ms: int) -> tuple[Day, ...]:
    """With so much of one class, the newest of it, counted as another."""
    found = list(days)
    for index in range(len(found) - 1, -1, -1):
        day, spent = found[index]
        part = min(ms, spent[before])
        if part:
            ms -= part
            changed = list(spent)
            changed[before] -= part
            changed[after] += part
            found[index] = Day(day, Spent(*changed))
    return tuple(found)


def _add(days: list[Day], day: int, *, use: Use, ms: int) -> None:
    # a clock that was set back may be in a day that is over: what it counts is of the newest known
    spent = days[-1].spent if days and days[-1].day >= day else Spent()
    changed = list(spent)
    changed[use] += ms
    if days and days[-1].day >= day:
        days[-1] = Day(days[-1].day, Spent(*changed))
    else:
        days.append(Day(day, Spent(*changed)))


def _cut(days: tuple[Day, ...], ms: int) -> tuple[Day, ...]:
    found = list(days)
    while ms and found:
        day, spent = found.pop()
        changed = list(spent)
        for use in range(len(changed) - 1, -1, -1):
            part = min(ms, changed[use])
            changed[use] -= part
            ms -= part
        if any(changed):
            found.append(Day(day, Spent(*changed)))
    return tuple(found)


def _merged(days: list[Day]) -> list[Day]:
    """The oldest in one, so that the others are few enough."""
    count = len(days) - MOST_DAYS + 1
    first = Day(days[count - 1].day, summed(day.spent for day in days[:count]))
    return [first, *days[count:]]
