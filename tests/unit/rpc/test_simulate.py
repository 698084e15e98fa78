"""What is told of changes that are tried out."""

from __future__ import annotations

from coordinator.core.outlook import Outlook
from coordinator.forecast.terms import Simulated
from coordinator.rpc.simulate import answer_of


def outlook(**starts_ms: int) -> Outlook:
    """Jobs start then, and nothing else."""
    devices = dict.fromkeys(starts_ms, 1.0)
    return Outlook(
        starts_ms=starts_ms,
        devices=devices,
        ended_count=0,
        preempted_count=0,
        drained_count=0,
        lost_ms=0,
        restart_ms=0,
        empty_ms=None,
    )


def test_a_start_that_moves_by_less_than_a_second_is_neither_sooner_nor_later() -> None:
    before = outlook(same=10_000, about=10_000, later=10_000, sooner=10_000, gone=10_000)
    after = outlook(same=10_000, about=10_999, later=11_000, sooner=1_000, new=5_000)
    told = answer_of(Simulated(before, after), now_ms=0)
    assert (told.sooner_count, told.later_count) == (2, 2)
    assert [one.job_id for one in told.starts] == ["gone", "new", "sooner", "later"]
