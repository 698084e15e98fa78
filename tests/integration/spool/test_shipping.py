"""What ranks print arrives: all of it, once, in order, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from node_agent.ranks import RankFiles
from node_agent.spool import kernel
from scaimind.agent.v1.agent_service_pb2 import EVENTS, STDERR, STDOUT
from scaimind.v1.stream_pb2 import ERROR, INFO, WARNING
from tests.integration.spool.conftest import Agent
from tests.integration.spool.coordinator import RecordingCoordinator

MIB = 1024 * 1024


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def event(rank: RankFiles, **fields: object) -> None:
    append(rank.path / "events", json.dumps(fields).encode() + b"\n")


def lines(count: int, *, start: int = 0) -> bytes:
    return b"".join(b"line %d of many\n" % i for i in range(start, start + count))


def expected(count: int) -> list[str]:
    return lines(count).decode().splitlines()


async def test_lines_arrive_while_the_rank_runs_and_the_last_half_line_at_its_end(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    agent.spool.watch(rank)
    append(rank.path / "stdout", b"one\nERROR two\nhalf")
    append(rank.path / "stderr", b"three\n")
    await agent.until(lambda: len(coordinator.of(STDOUT).texts) == 2)
    await agent.until(lambda: len(coordinator.of(STDERR).texts) == 1)
    assert coordinator.of(STDOUT).levels == [INFO, ERROR]
    assert not agent.spool.is_drained(rank.lease_id)
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    assert coordinator.of(STDOUT).texts == ["one", "ERROR two", "half"]


async def test_a_lease_without_output_is_drained_at_its_end(agent: Agent) -> None:
    rank = agent.rank()
    agent.spool.watch(rank)
    assert not agent.spool.is_drained(rank.lease_id)
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)


async def test_files_may_appear_after_the_rank_is_watched(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    (rank.path / "stdout").unlink()
    agent.spool.watch(rank)
    append(rank.path / "stdout", b"late\n")
    await agent.until(lambda: coordinator.of(STDOUT).texts == ["late"])


async def test_nothing_is_lost_or_doubled_when_the_coordinator_goes_and_comes(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    agent.spool.watch(rank)
    for round_number in range(4):
        append(rank.path / "stdout", lines(20_000, start=20_000 * round_number))
        seen = coordinator.batches
        await agent.until(lambda seen=seen: coordinator.batches > seen + 3)  # type: ignore[misc]
        await coordinator.stop()
        await coordinator.start()
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    assert coordinator.of(STDOUT).texts == expected(80_000)
    assert coordinator.streams > 1


async def test_nothing_is_lost_or_doubled_when_the_agent_dies(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    agent.spool.watch(rank)
    for round_number in range(4):
        append(rank.path / "stdout", lines(20_000, start=20_000 * round_number))
        seen = coordinator.batches
        await agent.until(lambda seen=seen: coordinator.batches > seen + 3)  # type: ignore[misc]
        # As kill -9 in the worst second: all of its memory of what was acknowledged is gone.
        await agent.stop()
        (rank.path / "acked.json").unlink(missing_ok=True)
        await agent.start()
        agent.spool.watch(rank)
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    assert coordinator.of(STDOUT).texts == expected(80_000)


async def test_output_goes_on_after_its_program_truncated_it(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    agent.spool.watch(rank)
    append(rank.path / "stdout", b"a long first line\n")
    await agent.until(lambda: len(coordinator.of(STDOUT).texts) == 1)
    (rank.path / "stdout").write_bytes(b"second\n")
    await agent.until(lambda: len(coordinator.of(STDOUT).texts) == 2)
    await agent.restart(rank)
    append(rank.path / "stdout", b"third\n")
    await agent.until(lambda: len(coordinator.of(STDOUT).texts) == 3)
    assert coordinator.of(STDOUT).texts == ["a long first line", "second", "third"]


async def test_a_chatty_rank_does_not_starve_another(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    chatty, quiet = agent.rank(0), agent.rank(1)
    append(chatty.path / "stdout", lines(300_000))
    agent.spool.watch(chatty)
    agent.spool.watch(quiet)
    await agent.until(lambda: len(coordinator.of(STDOUT).texts) > 1000)
    append(quiet.path / "stdout", b"still here\n")
    await agent.until(lambda: len(coordinator.of(STDOUT, rank=1).texts) == 1)
    assert len(coordinator.of(STDOUT).texts) < 300_000


async def test_megabytes_without_a_newline_arrive_whole(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    append(rank.path / "stdout", b"x" * (5 * MIB))
    agent.spool.watch(rank)
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    texts = coordinator.of(STDOUT).texts
    assert sum(text.count("x") for text in texts) == 5 * MIB
    assert all(len(text.encode()) <= 64 * 1024 for text in texts)


async def test_any_bytes_at_all_arrive_as_safe_lines(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    append(rank.path / "stdout", os.urandom(2 * MIB))
    append(rank.path / "events", os.urandom(MIB))
    agent.spool.watch(rank)
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    assert coordinator.of(STDOUT).texts
    assert 0 < len(coordinator.of(EVENTS).texts) <= 20


async def test_acknowledged_output_leaves_the_disk(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    path = rank.path / "stdout"
    append(path, lines(200_000))
    os.sync()
    agent.spool.watch(rank)
    full = path.stat().st_blocks
    await agent.until(lambda: path.stat().st_blocks < full // 10)
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    assert coordinator.of(STDOUT).texts == expected(200_000)


async def test_a_spool_over_its_budget_drops_the_oldest_and_says_so(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    await coordinator.stop()
    agent.budget_bytes = MIB
    rank = agent.rank()
    await agent.restart(rank)
    append(rank.path / "stdout", lines(250_000))
    os.sync()
    full = (rank.path / "stdout").stat().st_blocks
    await agent.until(lambda: (rank.path / "stdout").stat().st_blocks < full // 2)
    await coordinator.start()
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    stored = coordinator.of(STDOUT)
    assert len(stored.gaps) == 1
    # What was read before the gap is whole as well, and what follows it begins with a whole line.
    assert set(stored.texts) <= set(expected(250_000))
    assert stored.texts[-1] == "line 249999 of many"
    assert len(stored.texts) < 150_000


async def test_what_an_unknown_job_printed_is_dropped(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    coordinator.refuse_jobs.add("gone")
    gone, known = agent.rank(job_id="gone"), agent.rank(job_id="job-1")
    for rank in (gone, known):
        append(rank.path / "stdout", lines(10_000))
        agent.spool.watch(rank)
        agent.spool.ended(rank.lease_id, 0)
    await agent.drained(gone.lease_id, known.lease_id)
    assert coordinator.of(STDOUT, job_id="gone").texts == []
    assert coordinator.of(STDOUT).texts == expected(10_000)


async def test_a_forgotten_lease_leaves_nothing_behind(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    coordinator.hold = True
    gone, kept = agent.rank(job_id="gone"), agent.rank()
    append(gone.path / "stdout", lines(200_000))
    agent.spool.watch(gone)
    await agent.until(lambda: coordinator.batches > 0)
    agent.spool.forget(gone.lease_id)
    await coordinator.release()
    append(kept.path / "stdout", b"fine\n")
    agent.spool.watch(kept)
    await agent.until(lambda: coordinator.of(STDOUT).texts == ["fine"])
    assert len(coordinator.of(STDOUT, job_id="gone").texts) < 200_000


async def test_a_stream_on_which_nothing_is_acknowledged_holds_a_bounded_window(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    coordinator.hold = True
    rank = agent.rank()
    append(rank.path / "stdout", lines(300_000))
    agent.spool.watch(rank)
    await agent.until(lambda: coordinator.batches > 0)
    assert agent.spool._pusher.waiting <= 32
    await coordinator.release()
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    assert coordinator.of(STDOUT).texts == expected(300_000)


async def test_what_a_coordinator_has_lost_is_sent_again_as_far_as_it_is_there(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    agent.spool.watch(rank)
    append(rank.path / "stdout", lines(100))
    await agent.until(lambda: len(coordinator.of(STDOUT).texts) == 100)
    coordinator.forget(10, offset=len(lines(10)))
    append(rank.path / "stdout", lines(10, start=100))
    await agent.until(lambda: len(coordinator.of(STDOUT).texts) == 110)
    assert coordinator.of(STDOUT).texts == expected(110)
    assert coordinator.of(STDOUT).gaps == []


async def test_what_a_coordinator_has_lost_and_nobody_has_is_a_gap(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    path = rank.path / "stdout"
    append(path, lines(100_000))
    os.sync()
    full = path.stat().st_blocks
    agent.spool.watch(rank)
    await agent.until(lambda: path.stat().st_blocks < full // 2)
    await agent.until(lambda: len(coordinator.of(STDOUT).texts) == 100_000)
    coordinator.forget(10, offset=len(lines(10)))
    append(path, b"the end\n")
    await agent.until(lambda: "the end" in coordinator.of(STDOUT).texts)
    stored = coordinator.of(STDOUT)
    assert len(stored.gaps) == 1
    assert set(stored.texts) <= {*expected(100_000), "the end"}


async def test_a_batch_that_is_refused_does_not_hold_up_the_others(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    coordinator.poison = "poison"
    bad, good = agent.rank(0), agent.rank(1)
    append(bad.path / "stdout", b"poison\n")
    append(good.path / "stdout", b"fine\n")
    for rank in (bad, good):
        agent.spool.watch(rank)
        agent.spool.ended(rank.lease_id, rank.rank)
    await agent.drained(bad.lease_id)
    assert coordinator.of(STDOUT).texts == ["1 lines and 0 metrics were refused"]
    assert coordinator.of(STDOUT, rank=1).texts == ["fine"]


async def test_a_trainers_lines_become_metrics_and_stay_lines(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    main, other = agent.rank(0), agent.rank(1)
    for rank in (main, other):
        agent.spool.watch(rank)
        append(rank.path / "stdout", b"{'loss': 0.5, 'epoch': 0.1}\n{'loss': 0.4, 'epoch': 0.2}\n")
    await agent.until(lambda: len(coordinator.of(STDOUT, rank=1).texts) == 2)
    await agent.until(lambda: len(coordinator.of(STDOUT).points) == 2)
    # The count of steps goes on after a restart.
    await agent.restart(main)
    append(main.path / "stdout", b"{'loss': 0.3, 'epoch': 0.3}\n")
    await agent.until(lambda: len(coordinator.of(STDOUT).points) == 3)
    assert [p.step for p in coordinator.of(STDOUT).points] == [1, 2, 3]
    assert [p.values["loss"] for p in coordinator.of(STDOUT).points] == [0.5, 0.4, 0.3]
    assert len(coordinator.of(STDOUT).texts) == 3
    assert coordinator.of(STDOUT, rank=1).points == []


async def test_a_rank_that_reports_metrics_itself_is_not_searched_for_them(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    event(rank, event="metrics", step=1, values={"loss": 0.5})
    append(rank.path / "stdout", b"{'loss': 0.5, 'epoch': 0.1}\n")
    agent.spool.watch(rank)
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    assert coordinator.of(STDOUT).points == []
    assert [p.step for p in coordinator.of(EVENTS).points] == [1]


async def test_events_arrive_once_though_they_are_read_again_after_a_restart(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    agent.spool.watch(rank)
    event(rank, event="progress", fraction=0.5)
    event(rank, event="metrics", step=1, values={"loss": 0.5})
    event(rank, event="dance")
    event(rank, event="done")
    await agent.until(lambda: agent.spool.findings(rank.lease_id).done)
    await agent.until(lambda: len(coordinator.of(EVENTS).texts) == 1)
    await agent.restart(rank)
    event(rank, event="metrics", step=2, values={"loss": 0.4})
    event(rank, event="log", level="WARNING", message="careful")
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    stored = coordinator.of(EVENTS)
    assert [(p.step, p.progress) for p in stored.points] == [(1, 50.0), (2, 50.0)]
    assert len(stored.texts) == 2
    assert stored.texts[1] == "careful"
    assert stored.levels == [WARNING, WARNING]
    assert agent.spool.findings(rank.lease_id).done


async def test_checkpoints_are_found_proven_and_known_after_a_restart(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    agent.spool.watch(rank)
    for step in range(1, 6):
        folder = rank.checkpoint_dir / f"step-{step}"
        folder.mkdir()
        (folder / "weights").write_text(str(step))
        event(rank, event="checkpoint", step=step, path=str(folder))
    event(rank, event="checkpoint", step=6, path="missing")
    event(rank, event="checkpoint", step=7, path="/etc")
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    findings = agent.spool.findings(rank.lease_id)
    assert [c.step for c in findings.checkpoints] == [3, 4, 5]
    assert not findings.checkpointing
    faults = coordinator.of(EVENTS).texts
    assert len(faults) == 2
    assert any("step 6 is not proven" in text for text in faults)
    await agent.restart(rank)
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    assert agent.spool.findings(rank.lease_id) == findings
    assert coordinator.of(EVENTS).texts == faults


async def test_a_kernel_without_hints_and_holes_still_ships_everything(
    agent: Agent, coordinator: RecordingCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_libc", object())
    rank = agent.rank()
    await agent.restart(rank)
    for count in range(5):
        append(rank.path / "stdout", lines(10_000, start=10_000 * count))
        await agent.until(lambda n=count: len(coordinator.of(STDOUT).texts) == 10_000 * (n + 1))  # type: ignore[misc]
    assert coordinator.of(STDOUT).texts == expected(50_000)


async def test_a_folder_in_which_nothing_can_be_noted_is_shipped_and_freed(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    (rank.path / ".acked.json").mkdir()
    path = rank.path / "stdout"
    append(path, lines(100_000))
    os.sync()
    full = path.stat().st_blocks
    agent.spool.watch(rank)
    await agent.until(lambda: path.stat().st_blocks < full // 10)
    await agent.until(lambda: len(coordinator.of(STDOUT).texts) == 100_000)
    # Not knowing how far it was, a new agent still finds what is left, and sends nothing twice.
    await agent.restart(rank)
    append(path, b"the end\n")
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    assert coordinator.of(STDOUT).texts == [*expected(100_000), "the end"]
    assert coordinator.of(STDOUT).gaps == []
