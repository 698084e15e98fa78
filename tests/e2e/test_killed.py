"""kill -9 of each program while a job runs: the job never notices, and nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scaimind.v1 import job_pb2
from tests.e2e.conftest import MakeCluster
from tests.support import jobs, processes
from tests.support.cluster import Cluster
from tests.support.counting import Counting
from tests.support.waiting import until

PROGRAMS = ("coordinator", "gateway", "node_agent")
StartCounting = Callable[..., Counting[Cluster]]


@pytest.fixture
def counting(make_cluster: MakeCluster, tmp_path: Path) -> Iterator[StartCounting]:
    """Starts a cluster with a counting job on it."""
    started: list[Counting[Cluster]] = []

    def start(**options: int) -> Counting[Cluster]:
        started.append(Counting(make_cluster(), tmp_path, **options))
        started[-1].more_lines()
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_each_program_killed_in_turn_costs_no_line_and_no_attempt(counting: StartCounting) -> None:
    job = counting()
    for program in PROGRAMS:
        before = job.cluster.kill(program)
        job.cluster.returned(program, before)
        job.more_lines()
    job.end()
    assert job.check().status == job_pb2.Job.COMPLETED
    assert job.reader.breaks > 0


def test_all_programs_killed_at_once_cost_no_line_and_no_attempt(counting: StartCounting) -> None:
    job = counting(exit_code=5)
    before = {program: job.cluster.kill(program) for program in PROGRAMS}
    for program, pid in before.items():
        job.cluster.returned(program, pid)
    job.more_lines()
    job.end()
    ended = job.check()
    assert ended.status == job_pb2.Job.FAILED
    assert ended.error.exit_code == 5


def test_up_itself_killed_and_started_again_finds_the_job_running(counting: StartCounting) -> None:
    job = counting()
    children = [job.cluster.pid_of(program) for program in PROGRAMS]
    job.cluster.up.kill()
    job.cluster.up.wait()
    until(lambda: not any(map(processes.is_alive, children)), "the programs follow `up`")
    job.cluster.start()
    job.more_lines()
    job.end()
    assert job.check().status == job_pb2.Job.COMPLETED


def test_a_rank_that_ends_while_its_agent_is_dead_is_found_with_its_exit_code_and_last_line(
    counting: StartCounting,
) -> None:
    job = counting(exit_code=9)
    job.cluster.kill("node_agent")
    job.end()
    ended = job.check()
    assert ended.status == job_pb2.Job.FAILED
    assert (ended.error.exit_code, ended.error.first_failing_rank) == (9, 0)


def test_an_agent_killed_right_after_its_rank_was_told_to_end_loses_nothing(
    counting: StartCounting,
) -> None:
    job = counting()
    job.end()
    job.cluster.kill("node_agent")
    assert job.check().status == job_pb2.Job.COMPLETED


def test_jobs_go_on_when_up_is_stopped_and_are_found_again_when_it_is_started(
    counting: StartCounting,
) -> None:
    job = counting()
    reader_breaks = job.reader.breaks
    assert job.cluster.stop() == 0
    assert processes.of_folder(job.cluster.data_dir)
    job.cluster.start()
    job.more_lines()
    job.end()
    assert job.check().status == job_pb2.Job.COMPLETED
    assert job.reader.breaks > reader_breaks


def test_a_hundred_jobs_acknowledged_before_a_kill_of_the_coordinator_are_all_there(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(devices="sim:4xH100")
    body = jobs.body("/bin/true", gpu_type="H100")
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: cluster.client.submit(body), range(100)))
    before = cluster.kill("coordinator")
    cluster.returned("coordinator", before)
    acknowledged = {answer.job_id for answer in answers}
    assert len(acknowledged) == 100
    assert {job.job_id for job in cluster.client.list_jobs()} == acknowledged
    for job_id in acknowledged:
        job = jobs.final(cluster.client, job_id)
        assert (job.status, job.attempts_count) == (job_pb2.Job.COMPLETED, 1), job


def test_reads_are_answered_while_the_coordinator_is_dead_and_say_how_old_they_are(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    job_id = cluster.client.submit(jobs.body("/bin/true")).job_id
    jobs.final(cluster.client, job_id)

    def read(path: str, *, stale: bool) -> dict[str, Any] | None:
        answer = cluster.rest.get(path)
        assert answer.status_code == 200, answer.text
        assert ("x-scaimind-stale" in answer.headers) == answer.json()["meta"].get("stale", False)
        data: dict[str, Any] = answer.json()["data"]
        return data if ("x-scaimind-stale" in answer.headers) is stale else None

    known = read(f"/jobs/{job_id}", stale=False)
    until((cluster.data_dir / "gateway.cache").exists, "copies are kept")
    before = cluster.kill("coordinator")
    assert until(lambda: read(f"/jobs/{job_id}", stale=True), "a copy is read") == known
    cluster.returned("coordinator", before)
    assert until(lambda: read(f"/jobs/{job_id}", stale=False), "the job is read again") == known
