"""What a drain would come to: foretold by the core that would carry it out."""

from __future__ import annotations

import pytest

from coordinator.core.commands import DrainNode
from coordinator.core.core import Core, CoreSettings
from coordinator.core.forecast import SAVE_MS, STOP_MS, settings_for
from coordinator.core.records import Checkpoint, LeaseState
from coordinator.core.whatif import Emptying, Fate, Outcome, emptying
from tests.unit.core.conftest import Bench, caller

HOUR_MS = 3_600_000
RAN_MS = 600_000


@pytest.fixture
def bench() -> Bench:
    """Two nodes; on n1 one training that has proven a checkpoint, and one that has not."""
    bench = Bench()
    bench.node("n1", 4)
    bench.submit("saves", 2, expected_duration_ms=2 * HOUR_MS)
    bench.submit("plain", 1, expected_duration_ms=HOUR_MS, grace_ms=30_000)
    bench.report("n1", *(bench.seen(f"{id}.1.0", LeaseState.RUNNING) for id in ("saves", "plain")))
    bench.now_ms += RAN_MS
    saved = Checkpoint(
        checkpoint_id="step-1",
        step=1,
        uri="",
        size_bytes=1,
        digest="",
        created_at_ms=bench.now_ms,
        attempt=1,
    )
    bench.report(
        "n1",
        bench.seen("saves.1.0", LeaseState.RUNNING, checkpoints=(saved,)),
        bench.seen("plain.1.0", LeaseState.RUNNING),
    )
    bench.node("n2", 2)
    return bench


def foretell(bench: Bench, *, lucky: bool = True, plan: bool = True, **wish: object) -> Emptying:
    core = Core(settings_for(CoreSettings()))
    core.load(bench.core.state.records())
    command = DrainNode(caller=caller(), node_id="n1", **wish)  # type: ignore[arg-type]
    digest = bench.core.digest()
    [found] = emptying(
        core, bench.now_ms, node_ids=["n1"], wish=command if plan else None, lucky=lucky
    )
    assert bench.core.digest() == digest
    return found


def fates(found: Emptying) -> dict[str, Fate]:
    return {fate.job_id: fate for fate in found.fates}


def test_to_wait_takes_until_the_last_job_ends_and_costs_nothing(bench: Bench) -> None:
    found = foretell(bench)
    assert [fate.outcome for fate in found.fates] == [Outcome.ENDS, Outcome.ENDS]
    assert found.empty_ms == bench.now_ms + 2 * HOUR_MS - RAN_MS
    assert not any(fate.lost_ms or fate.restart_ms for fate in found.fates)
    assert found.left_ms == 2 * (2 * HOUR_MS - RAN_MS) + (HOUR_MS - RAN_MS)


def test_to_move_takes_a_checkpoint_of_each_and_says_where_it_goes_on(bench: Bench) -> None:
    saves = fates(foretell(bench, move=True))["saves"]
    assert saves.outcome is Outcome.MOVES
    assert saves.leaves_ms == bench.now_ms + SAVE_MS + STOP_MS
    assert saves.lost_ms == 2 * STOP_MS
    assert saves.start is not None
    assert saves.start.node_ids == ("n2",)


def test_who_has_never_saved_may_stay_to_its_end(bench: Bench) -> None:
    late = fates(foretell(bench, move=True, lucky=False))
    assert late["plain"].outcome is Outcome.ENDS
    assert late["saves"].outcome is Outcome.MOVES


def test_by_force_it_loses_what_it_has_done_since_it_began(bench: Bench) -> None:
    plain = fates(foretell(bench, force=True, lucky=False))["plain"]
    assert plain.outcome is Outcome.FORCED
    assert plain.lost_ms == RAN_MS + 30_000 + STOP_MS
    assert plain.leaves_ms == bench.now_ms + 30_000 + STOP_MS


def test_past_the_deadline_who_waits_is_forced(bench: Bench) -> None:
    deadline_ms = bench.now_ms + HOUR_MS
    found = fates(foretell(bench, deadline_ms=deadline_ms))
    assert found["plain"].outcome is Outcome.ENDS
    assert found["saves"].outcome is Outcome.MOVES
    assert found["saves"].leaves_ms == deadline_ms + SAVE_MS + STOP_MS


def test_what_fits_nowhere_else_has_no_start(bench: Bench) -> None:
    bench.submit("big", 2, expected_duration_ms=9 * HOUR_MS)
    found = fates(foretell(bench, move=True))
    assert found["plain"].start is not None
    assert found["saves"].start is not None
    assert found["saves"].start.at_ms > bench.now_ms + HOUR_MS


def test_a_drain_that_goes_on_is_told_of_as_it_is(bench: Bench) -> None:
    bench.step(DrainNode(caller=caller(), node_id="n1", move=True))
    found = foretell(bench, plan=False)
    assert {fate.outcome for fate in found.fates} == {Outcome.MOVES}
    assert found.empty_ms == bench.now_ms + SAVE_MS + STOP_MS


def test_an_unknown_node_is_empty(bench: Bench) -> None:
    core = Core(settings_for(CoreSettings()))
    [found] = emptying(core, bench.now_ms, node_ids=["n9"])
    assert (found.fates, found.empty_ms) == ((), bench.now_ms)
