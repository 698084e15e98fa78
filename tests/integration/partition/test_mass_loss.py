"""Nearly all nodes fall silent at once: the coordinator doubts the network, and gives nobody up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scaimind.v1 import job_pb2
from tests.integration.partition.test_keep import over
from tests.support.cluster import ROOT
from tests.support.networks import Network
from tests.support.parted import SHORT, Beating, Parted
from tests.support.several import START_S
from tests.support.waiting import until

CROWD = 24  # agents over real gRPC that run nothing
FROZEN = ["REPLACEMENT_FROZEN"]


@pytest.fixture
def parted() -> Iterator[Parted]:
    """A cluster of its own, with room for two jobs on each of its two nodes."""
    folder = Path(tempfile.mkdtemp(prefix="parted-"))
    try:
        with Parted(folder, devices=2) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def crowd(parted: Parted) -> Iterator[Network]:
    """Many more nodes, all behind one cable."""
    with Network() as network:
        words = ["-m", "bench.agents", "--server", parted.address, "--count", str(CROWD)]
        words += ["--folder", str(parted.folder / "crowd"), "--hold-ms", str(SHORT.hold_ms)]
        words += ["--token", (parted.folder / "join.token").read_text().strip()]
        with subprocess.Popen(
            [*network.prefix, sys.executable, *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"kind": "back", "limit_s": START_S}) + "\n")
            process.stdin.flush()
            assert "seconds" in process.stdout.readline()
            try:
                yield network
            finally:
                process.kill()


def count(parted: Parted, status: str) -> int:
    return len(list(parted.client.nodes(status=status)))


def alarms(parted: Parted) -> list[str]:
    return [alarm.code for alarm in parted.client.cluster().alarms]


def test_of_many_nodes_that_fall_silent_at_once_none_is_given_up_and_no_rank_runs_twice(
    parted: Parted, tmp_path: Path
) -> None:
    keeps = Beating(parted, tmp_path / "keeps")
    lost = parted.machine_of(keeps.job_id)
    replaced = Beating(parted, tmp_path / "replaced", scheduling={"on_unreachable": "REPLACE"})
    assert parted.machine_of(replaced.job_id) is lost  # packed; the other node is free
    pids = {one.job_id: one.beats(1).pid for one in (keeps, replaced)}
    with crowd(parted) as others:
        until(lambda: count(parted, "READY") == CROWD + 2, parted.story, within_s=START_S)
        others.unplug()
        lost.network.unplug()
        until(lambda: count(parted, "UNREACHABLE") == CROWD + 1, parted.story)
        assert alarms(parted) == FROZEN
        until(over(SHORT.replace_s), "each of them would have been given up alone")
        # The node in contact has room, and yet nothing was begun anew; what is to be kept runs on.
        assert alarms(parted) == FROZEN
        until(lambda: count(parted, "READY") == 1, parted.story)
        for one in (keeps, replaced):
            assert one.record.attempts_count == 1
            assert one.record.status == job_pb2.Job.TRAINING
        assert keeps.beats(1).pid == pids[keeps.job_id]
        assert [proof.pid for proof in replaced.proofs()] == [pids[replaced.job_id]]

        others.heal()
        lost.network.heal()
        until(lambda: count(parted, "READY") == CROWD + 2, parted.story, within_s=START_S)
        until(lambda: not alarms(parted), parted.story)
    # A rank of REPLACE had stopped by itself, as it must; now that this is known the job goes on, once.
    replaced.beats(2)
    replaced.end(attempts=2)
    assert keeps.beats(1).pid == pids[keeps.job_id]
    keeps.end()
