"""How long a job will still run: given by whoever submits it, else learnt from those before it.

Theory of operation. What is learnt is a hazard: of the jobs that ran for so long, which part ended in
the next step. Steps grow by half each, from ten seconds to more than ten years. Counting who reached a step and
who ended in it lets an attempt that was stopped count for as far as it came (the estimator of Kaplan and
Meier), so long jobs are not forgotten because they have not ended.

A job has up to four kins: jobs of its name in its image by its user, those of its name, jobs of its
user, jobs of about its size; the sum of the last is all jobs. An image counts by its repository, whatever
its tag. A kin of which little is known leans on the wider one: `LEANS_ON` observations are borrowed from it
in each step.

What SHORTEST orders by is the Gittins index, the best ratio of time spent to the chance of an end:
    least over d of  E[min(remaining, d)] / P(remaining <= d)
which is the remaining time itself where that is certain. A job that has outlived what it gave as its
duration is taken to need as long again as it is late.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Protocol

from coordinator.core.records import Demand, History, Job, Policy

FIRST_MS = 10_000
RATIO = 1.5
STEPS = 44
BOUNDS_MS = tuple(round(FIRST_MS * RATIO**k) for k in range(STEPS))
WIDTHS_MS = tuple(high - low for low, high in zip((0, *BOUNDS_MS), BOUNDS_MS, strict=False))
LEANS_ON = 4.0
ENDS = (
    0.2  # part that ends in a step where nothing is known: half of all before they are twice as old
)
MOST = 2_000  # observations that a kin keeps; then all of them count half
LATE = 20  # a job that is late needs at least this part of what it gave
NAME_LIMIT = 64
MOST_KEPT = 1_000  # answers that are remembered
Kins = tuple[str, ...]
_NUMBERS = re.compile("[0-9]+")


@dataclass(slots=True)
class Known:
    """A history, and its two rows in full length."""

    history: History
    reached: list[int]
    ended: list[int]


def step_of(age_ms: int) -> int:
    """The step in which a job of this age is."""
    return min(STEPS - 1, bisect_right(BOUNDS_MS, age_ms))


class Asked(Protocol):
    """A job, or what is to become one: all that its running time is estimated by."""

    @property
    def tenant_id(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def image(self) -> str: ...
    @property
    def demand(self) -> Demand: ...
    @property
    def policy(self) -> Policy: ...


def kins_of(job: Asked) -> Kins:
    """The kins of a job, widest first. A name counts without its numbers."""
    return _kins(job.demand.device_count, job.tenant_id, job.user_id, job.name, job.image)


@lru_cache(maxsize=1024)
def _kins(device_count: int, *who: str) -> Kins:
    tenant_id, user_id, name, image = who
    user = f"{tenant_id}/{user_id}"
    named = f"{user}/{plain(name)}"
    found = f"size/{device_count.bit_length()}", f"user/{user}", f"name/{named}"
    return (*found, f"image/{named}/{image}") if image else found


@lru_cache(maxsize=1024)
def plain(name: str) -> str:
    """A name without its numbers."""
    if name.isascii():
        return _NUMBERS.sub("#", name)[:NAME_LIMIT]
    runs = groupby(name, str.isdigit)
    return "".join("#" if numbers else "".join(text) for numbers, text in runs)[:NAME_LIMIT]


class Estimates:
    """What is known of running times, and the questions that it answers."""

    def __init__(self) -> None:
        self.known: dict[
            str, Known
        ] = {}  # by kin; the one that was not told of for longest is first
        self._all = Known(History(kin=""), [0] * STEPS, [0] * STEPS)

        # memos: what jobs are ordered by, by kins and step; what those that have not run run for
        self._indexes: dict[tuple[Kins, int], int] = {}
        self._medians: dict[tuple[Kins, int], int] = {}

    def put(self, history: History) -> None:
        """Takes over what is known of a kin."""
        old = self._take(history.kin)
        new = Known(history, _full(history.reached), _full(history.ended))
        self.known[history.kin] = new
        self._count(old, new)

    def drop(self, kin: str) -> None:
        """Forgets a kin."""
        self._count(self._take(kin), None)

    def _take(self, kin: str) -> Known | None:
        self._indexes.clear()
        self._medians.clear()
        return self.known.pop(kin, None)

    def stalest(self) -> str:
        """The kin that was not told of for longest."""
        return next(iter(self.known))

    def history(self, kin: str) -> History:
        """What is known of a kin; empty where nothing is."""
        known = self.known.get(kin)
        return known.history if known else History(kin=kin)

    def left_ms(self, job: Asked, age_ms: int) -> int:
        """By what to order a job that has run for `age_ms`: the index, or what it said."""
        given_ms = job.policy.expected_duration_ms
        if given_ms:
            return _given_left_ms(given_ms, age_ms)
        kins, step = kins_of(job), step_of(age_ms)
        return _known(self._indexes, (kins, step), find=lambda: self._index_ms(kins, step))

    def steady_ms(self, job: Job, age_ms: int) -> int:
        """For how much longer `left_ms` stays about what it is, while the job runs."""
        given_ms = job.policy.expected_duration_ms
        if given_ms:
            return max(_late_ms(given_ms), _given_left_ms(given_ms, age_ms) // 5)
        step = step_of(age_ms)
        return max(FIRST_MS, BOUNDS_MS[step] - age_ms)

    def median_left_ms(self, job: Job, age_ms: int) -> int:
        """For how much longer a job that has run for `age_ms` will run, as likely as not."""
        if age_ms or job.policy.expected_duration_ms:
            return self.part_left_ms(job, age_ms, part=0.5)
        key = kins_of(job), 0
        return _known(self._medians, key, find=lambda: self.part_left_ms(job, 0, part=0.5))

    def part_left_ms(self, job: Job, age_ms: int, *, part: float) -> int:
        """For how much longer it will run at most, in that part of all cases, above 0 and below 1.

        What was given is taken at its word.
        """
        ends_by = part
        given_ms = job.policy.expected_duration_ms
        if given_ms:
            return _given_left_ms(given_ms, age_ms)
        left_ms, alive = 0, 1.0
        for step, ends in self._hazards(kins_of(job), step_of(age_ms)):
            width_ms = BOUNDS_MS[step] - age_ms if not left_ms else WIDTHS_MS[step]
            if alive * (1 - ends) <= 1 - ends_by:
                part = (alive - (1 - ends_by)) / (alive * ends) if ends else 1.0
                return left_ms + max(1, round(width_ms * part))
            left_ms += max(1, width_ms)
            alive *= 1 - ends
        return left_ms

    def _index_ms(self, kins: Kins, step: int) -> int:
        """The index of a job that has come to a step."""
        spent, alive, best = 0.0, 1.0, float("inf")
        for number, ends in self._hazards(kins, step):
            spent += alive * WIDTHS_MS[number] * (1 - ends / 2)
            alive *= 1 - ends
            if spent < best * (1 - alive):
                best = spent / (1 - alive)
            elif alive < 0.001 or spent > best:
                break
        return round(best)

    def _hazards(self, kins: Kins, step: int) -> Iterator[tuple[int, float]]:
        """(step, part of those that come so far which end in it), from a step on."""
        rows = [
            (known.reached, known.ended)
            for kin in kins
            if (known := self.known.get(kin)) is not None
        ]
        rows.insert(0, (self._all.reached, self._all.ended))
        for number in range(step, STEPS):
            ends = ENDS
            for reached, ended in rows:
                ends = (ended[number] + LEANS_ON * ends) / (reached[number] + LEANS_ON)
            yield number, ends

    def _count(self, old: Known | None, new: Known | None) -> None:
        """Has all jobs be the sum of the sizes again, after one was replaced."""
        one = new or old
        if one is None or not one.history.kin.startswith("size/"):
            return
        before, after = old or _NOTHING, new or _NOTHING
        self._all.reached = _moved(self._all.reached, before.reached, now=after.reached)
        self._all.ended = _moved(self._all.ended, before.ended, now=after.ended)


_NOTHING = Known(History(kin=""), [0] * STEPS, [0] * STEPS)


def _moved(row: list[int], before: list[int], *, now: list[int]) -> list[int]:
    return [count - old + new for count, old, new in zip(row, before, now, strict=True)]


def _known(
    memo: dict[tuple[Kins, int], int], key: tuple[Kins, int], *, find: Callable[[], int]
) -> int:
    """What a bounded memo holds, or what is found."""
    known = memo.get(key)
    if known is None:
        if len(memo) >= MOST_KEPT:
            memo.clear()
        known = memo[key] = find()
    return known


def learn(history: History, *, from_ms: int, to_ms: int, ended: bool, now_ms: int) -> History:
    """Adds a job that went on from one age to another, and ended there or was stopped."""
    first, last = step_of(from_ms), step_of(to_ms)
    reached, ended_in = _full(history.reached), _full(history.ended)
    for step in range(first + bool(from_ms), last + 1):
        reached[step] += 1
    if ended:
        ended_in[last] += 1
    if reached[0] > MOST:
        reached, ended_in = [x // 2 for x in reached], [x // 2 for x in ended_in]
    return History(
        kin=history.kin, reached=_short(reached), ended=_short(ended_in), updated_at_ms=now_ms
    )


def _given_left_ms(given_ms: int, age_ms: int) -> int:
    late_ms = age_ms - given_ms
    return max(-late_ms, _late_ms(given_ms) + max(0, late_ms))


def _late_ms(given_ms: int) -> int:
    return max(1_000, given_ms // LATE)


def _full(row: tuple[int, ...]) -> list[int]:
    return [*row[:STEPS], *[0] * (STEPS - len(row))]


def _short(row: list[int]) -> tuple[int, ...]:
    end = len(row)
    while end and not row[end - 1]:
        end -= 1
    return tuple(row[:end])
