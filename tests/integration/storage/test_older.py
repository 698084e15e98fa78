"""What an older release has written is taken over by the programs of today.

`older/` holds both databases as SQL, as the programs of commit 130a747 (the first that ran a job from end to
end, layout 1 of the store) left them after kill -9: one job completed, one failed, one cancelled, two running
on node n1 and one waiting for it. Only its times were set back, so that no clock is behind them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.data_dir import ADMIN_KEY, STORE, STREAMS
from scaimind import Client, MindError
from scaimind.v1 import job_pb2
from tests.support import jobs, processes
from tests.support.ports import Port
from tests.support.several import START_S, Program
from tests.support.waiting import until

Job = job_pb2.Job
OLDER = Path(__file__).parent / "older"
KEY = "sgk_4c4f1uWGeGEItweal_gi3Ba4zgkOJfb6RW-sysmeodg"
"""The key of its admin; nothing else was ever opened by it."""
THEN = {
    "done": Job.COMPLETED,
    "failed": Job.FAILED,
    "cancelled": Job.CANCELLED,
    "waiting": Job.QUEUED,
    "running-0": Job.TRAINING,
    "running-1": Job.TRAINING,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory as it was left."""
    folder = tmp_path / "coordinator"
    folder.mkdir()
    for name in (STORE, STREAMS):
        with closing(sqlite3.connect(folder / name)) as connection:
            connection.executescript((OLDER / name).with_suffix(".sql").read_text())
    (folder / ADMIN_KEY).write_text(f"{KEY}\n")
    return folder


@pytest.fixture
def coordinator(folder: Path) -> Iterator[Program]:
    """The program of today on it."""
    with Port() as port:
        words = ("--data-dir", str(folder), "--grpc", str(port))
        program = Program(folder.parent, "coordinator", "coordinator", *words)
        program.start()
        yield program
        program.kill()


@pytest.fixture
def client(coordinator: Program) -> Iterator[Client]:
    with Client(coordinator.words[-1], KEY) as client:
        until(
            lambda: _answers(client), lambda: f"it answers\n{coordinator.story()}", within_s=START_S
        )
        yield client


def test_jobs_of_an_older_release_are_read_and_those_that_ran_and_waited_go_on(
    client: Client, coordinator: Program, tmp_path: Path
) -> None:
    found = {one.name: one for one in client.list_jobs()}
    assert {name: one.status for name, one in found.items()} == THEN
    assert jobs.lines(client, found["done"].job_id) == ["hello of then"]
    assert found["failed"].error.exit_code == 1
    assert client.get_job(found["running-0"].job_id).attempt.node_ids == ["n1"]

    agent = Program(
        tmp_path,
        *("agent", "node_agent", "--coordinator", coordinator.words[-1], "--node-id", "n1"),
        *("--devices", "sim:2xH100", "--data-dir", str(tmp_path / "n1")),
        *("--join-token-file", str(tmp_path / "coordinator" / "join.token")),
    )
    agent.start()
    try:
        # The node knows nothing of what ran there: it is lost with it, and runs again at no cost.
        for name in ("running-0", "running-1"):
            job_id = found[name].job_id
            until(
                lambda job_id=job_id: client.get_job(job_id).attempts_count == 2,  # type: ignore[misc]
                lambda: f"it runs again\n{coordinator.story()}\n{agent.story()}",
            )
            client.cancel(job_id)
        assert jobs.final(client, found["waiting"].job_id).status == Job.COMPLETED
        assert jobs.lines(client, found["waiting"].job_id) == ["at last"]
        for name in ("running-0", "running-1"):
            assert jobs.final(client, found[name].job_id).status == Job.CANCELLED
    finally:
        agent.kill()
        processes.kill_all(processes.of_folder(tmp_path))


def _answers(client: Client) -> bool:
    try:
        return bool(list(client.list_jobs()))
    except MindError:
        return False
