"""Checkpoints that are uploaded: the newest first, the last n kept, none removed that is wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from node_agent.ranks import ProvenCheckpoint, RankFiles
from node_agent.spool.checkpoints import Checkpoints
from node_agent.spool.remote import TRIES
from node_agent.uploads.orders import Failed, Order, Remove, Upload
from tests.unit.node_agent.spool.test_checkpoints import Notes, rank_files, report, save, settle

BASE = "s3://bucket/job-1"


class Mover:
    """Does nothing but keep what it was told; fails while `fault` is set."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.fault: Failed | None = None

    async def __call__(self, order: Order) -> None:
        if self.fault is not None:
            raise self.fault
        self.orders.append(order)

    @property
    def uploaded(self) -> list[str]:
        return [o.target.rpartition("/")[2] for o in self.orders if isinstance(o, Upload)]

    @property
    def removed(self) -> list[str]:
        return [o.target for o in self.orders if isinstance(o, Remove)]


class Lease:
    """The checkpoints of a lease, and what is noted in its log."""

    def __init__(self, root: Path, *, keep: int = 2, **of: Any) -> None:
        self.files: RankFiles = replace(rank_files(root, keep=keep), remote=BASE, attempt=2, **of)
        self.checkpoints = Checkpoints(self.files)
        self.mover, self.notes = Mover(), Notes()

    async def prove(self, *steps: int) -> None:
        for step in steps:
            assert (
                report(
                    self.checkpoints, step, path=save(self.files, f"step-{step}", content=f"{step}")
                )
                is None
            )
            await settle(self.checkpoints)

    async def upload(self, *, is_last: bool = False) -> float:
        return await self.checkpoints.upload(mover=self.mover, is_last=is_last, note=self.notes)

    def steps(self) -> list[int]:
        return [one.step for one in self.checkpoints.proven()]

    def wants_removal(self) -> bool:
        return self.checkpoints.may_remove

    def restart(self) -> None:
        self.checkpoints = Checkpoints(self.files)


def earlier(*steps: int) -> tuple[ProvenCheckpoint, ...]:
    return tuple(
        ProvenCheckpoint(f"old-{step}", step, f"{BASE}/old-{step}/x", 1, 1, "sha256:0", 1)
        for step in steps
    )


async def test_a_checkpoint_counts_once_it_is_uploaded_and_answers_an_ask_then(
    tmp_path: Path,
) -> None:
    lease = Lease(tmp_path)
    lease.checkpoints.ask(1, [lease.files])
    await lease.prove(5)
    assert (lease.steps(), lease.checkpoints.saved) == ([], 0)
    assert lease.checkpoints.is_uploading
    await lease.upload()
    (there,) = lease.checkpoints.proven()
    assert there.uri == f"{BASE}/{there.checkpoint_id}/step-5"
    assert lease.checkpoints.saved == 1
    assert not lease.checkpoints.is_uploading


async def test_while_one_is_on_its_way_only_the_newest_of_those_that_come_is_next(
    tmp_path: Path,
) -> None:
    lease = Lease(tmp_path)
    await lease.prove(1, 2, 3)
    await lease.upload()
    assert lease.mover.uploaded == ["step-3"]
    assert not lease.checkpoints.is_uploading


async def test_what_is_more_than_the_last_n_goes_once_the_coordinator_does_not_know_it(
    tmp_path: Path,
) -> None:
    lease = Lease(tmp_path, earlier=earlier(1, 2))
    await lease.prove(3)
    await lease.upload()
    assert lease.checkpoints.retired == ("old-1",)
    assert not lease.wants_removal()  # nobody has told what the coordinator knows
    lease.checkpoints.know(["old-1", "old-2"])
    assert not lease.wants_removal()
    lease.restart()
    lease.checkpoints.know(["old-2"])
    await lease.upload()
    assert lease.mover.removed == [f"{BASE}/old-1/x"]
    assert (lease.checkpoints.may_remove, lease.checkpoints.retired) == (False, ("old-1",))


async def test_what_the_attempt_goes_on_from_and_the_only_one_are_never_removed(
    tmp_path: Path,
) -> None:
    lease = Lease(tmp_path, keep=1, earlier=earlier(1, 2), resumed="old-1")
    lease.checkpoints.know([])
    for step in (3, 4):
        await lease.prove(step)
        await lease.upload()
        await lease.upload()
    assert lease.checkpoints.retired == ("old-2",)
    await lease.upload()
    assert "old-1" not in "".join(lease.mover.removed)
    assert lease.steps() == [4]
    assert len(lease.mover.removed) == 2  # old-2, and the one of step 3


async def test_a_store_that_is_away_is_tried_for_as_long_as_the_ranks_run(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    await lease.prove(1)
    lease.mover.fault = Failed("away")
    waits = [await lease.upload() for _ in range(TRIES + 3)]
    assert waits[:3] == [1.0, 2.0, 4.0]
    assert lease.checkpoints.is_uploading
    assert lease.notes.texts == [
        "the checkpoint of step 1 is not uploaded: away; it is tried again"
    ]
    assert await lease.upload(is_last=True) == 0.0
    assert await lease.upload() == 0.0  # nothing is left to do
    assert lease.steps() == []
    assert lease.notes.texts[1:] == ["the checkpoint of step 1 is not uploaded: away"]


async def test_what_cannot_be_uploaded_is_given_up_and_the_next_one_is_not(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    await lease.prove(1)
    lease.mover.fault = Failed("changed", lasting=True)
    await lease.upload()
    assert await lease.upload() == 0.0
    lease.mover.fault = None
    await lease.prove(2)
    await lease.upload()
    assert lease.steps() == [2]


async def test_an_agent_that_starts_again_uploads_what_is_not_there_yet(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    await lease.prove(1)
    await lease.upload()
    await lease.prove(2)
    lease.restart()
    assert lease.steps() == [1]
    await lease.upload()
    assert lease.mover.uploaded == ["step-1", "step-2"]
    assert lease.steps() == [1, 2]
