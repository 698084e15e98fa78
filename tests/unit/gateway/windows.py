"""What every window of requests keeps to, whether in memory or shared."""

from __future__ import annotations

import asyncio

from gateway.rates import Subject, Window


async def counts_up_to_the_limit(window: Window) -> None:
    """The last free place is given away, the next request is refused."""
    subject = [Subject("{a}:one", 3)]
    verdicts = [await window.take(subject) for _ in range(5)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False, False]
    assert [verdict.usages[0].remaining for verdict in verdicts] == [2, 1, 0, 0, 0]
    assert all(0 < verdict.usages[0].reset_after_s <= 60 for verdict in verdicts)


async def counts_against_all_or_none(window: Window) -> None:
    """A request that one limit refuses takes nothing from the others."""
    narrow, wide = Subject("{a}:narrow", 1), Subject("{a}:wide", 10)
    assert (await window.take([narrow, wide])).allowed
    for _ in range(3):
        verdict = await window.take([narrow, wide])
        assert not verdict.allowed
        assert [usage.remaining for usage in verdict.usages] == [0, 9]
    assert (await window.take([wide])).usages[0].remaining == 8


async def keeps_subjects_apart(window: Window) -> None:
    """One who has used up everything costs another nothing."""
    assert (await window.take([Subject("{a}:x", 1)])).allowed
    assert not (await window.take([Subject("{a}:x", 1)])).allowed
    assert (await window.take([Subject("{b}:x", 1)])).allowed


async def admits_no_more_when_all_come_at_once(window: Window) -> None:
    """The limit holds for requests that come together."""
    verdicts = await asyncio.gather(*(window.take([Subject("{a}:many", 7)]) for _ in range(30)))
    assert sum(verdict.allowed for verdict in verdicts) == 7


CONTRACT = (
    counts_up_to_the_limit,
    counts_against_all_or_none,
    keeps_subjects_apart,
    admits_no_more_when_all_come_at_once,
)
