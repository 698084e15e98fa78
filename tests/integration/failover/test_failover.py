"""Whatever becomes of the leader, another one leads within seconds, and jobs never notice."""

from __future__ import annotations

import signal
import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from scaimind.client import MindError
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import GetClusterRequest
from scaimind.v1.mind_coordinator_pb2_grpc import MindCoordinatorStub
from tests.integration.failover.conftest import StartCounting
from tests.support import jobs
from tests.support.several import START_S, TTL_S, Several
from tests.support.waiting import until

FAILOVER_S = 5.0 - 3.0 + TTL_S  # the promise is for a ttl of 3 s
SLOW_S = 40.0  # what a busy machine may add; `python -m bench failover` measures

BEATING = """
    import os, sys, time
    while True:
        with open(sys.argv[1] + ".new", "w") as file:
            file.write(f"{time.monotonic_ns():020}")
        os.replace(sys.argv[1] + ".new", sys.argv[1])
        time.sleep(0.01)
    """


def submit_until_taken(
    several: Several, *, within_s: float, given: dict[str, Any] | None = None, request_id: str = ""
) -> str:
    """Submits under one request id until a coordinator takes it."""
    body = given or jobs.body("/bin/true")
    request_id = request_id or f"failover-{time.monotonic_ns()}"

    def submit() -> str | None:
        try:
            return several.client.submit(body, request_id=request_id).job_id
        except MindError:
            return None

    return until(submit, lambda: f"a job is taken\n{several.story()}", within_s=within_s)


def refusal(address: str) -> tuple[str, str]:
    """How one coordinator refuses a call: the reason, and the leader that it names."""
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        MindCoordinatorStub(channel).GetCluster(GetClusterRequest(), timeout=10)
    info = error_details_pb2.ErrorInfo()
    trailers: Any = caught.value
    for key, value in trailers.trailing_metadata():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info)
    return info.reason, info.metadata.get("leader", "")


def test_a_standby_serves_nothing_and_names_the_leader(several: Several) -> None:
    leader, standby = several.coordinators
    until(leader.serves, several.story)
    assert not standby.serves()
    assert refusal(standby.address) == ("NOT_LEADER", leader.address)


def test_kill_9_of_the_leader_costs_seconds_and_nothing_else(
    several: Several, counting: StartCounting
) -> None:
    job = counting()
    first = several.leader()
    first.kill()
    submit_until_taken(several, within_s=FAILOVER_S + SLOW_S)
    second = several.leader(but=first)
    job.more_lines()
    first.start()
    first.wait_until_it_stands_by()
    second.kill()
    submit_until_taken(several, within_s=FAILOVER_S + SLOW_S)
    job.more_lines()
    job.end()
    assert job.check().status == job_pb2.Job.COMPLETED


def test_a_leader_that_is_told_to_end_hands_over_at_once(several: Several) -> None:
    first = several.leader()
    first.send(signal.SIGTERM)
    began_s = time.monotonic()
    several.leader(but=first)
    assert time.monotonic() - began_s < TTL_S + SLOW_S
    assert first.process.wait(START_S) == 0


def test_a_leader_that_was_frozen_past_its_time_changes_nothing_and_stands_by(
    several: Several, counting: StartCounting
) -> None:
    job = counting()
    first = several.leader()
    first.send(signal.SIGSTOP)
    second = several.leader(but=first)
    taken = submit_until_taken(several, within_s=2 * FAILOVER_S + SLOW_S)
    job.more_lines()
    first.send(signal.SIGCONT)
    until(lambda: "deposed" in first.story(), several.story, within_s=START_S)
    first.wait_until_it_stands_by()
    assert not first.serves()
    until(second.serves, several.story)
    assert refusal(first.address) == ("NOT_LEADER", second.address)
    assert several.client.get_job(taken).job_id == taken
    job.end()
    assert job.check().status == job_pb2.Job.COMPLETED


def test_redis_killed_and_started_again_loses_nothing_that_was_acknowledged(
    several: Several, counting: StartCounting
) -> None:
    job = counting()
    taken = [submit_until_taken(several, within_s=START_S) for _ in range(20)]
    for _ in range(2):
        several.redis.kill()
        several.redis.start()
        taken.append(submit_until_taken(several, within_s=START_S))
        job.more_lines()
    for job_id in taken:
        assert several.client.get_job(job_id).job_id == job_id
    job.end()
    assert job.check().status == job_pb2.Job.COMPLETED


def test_a_redis_that_was_emptied_is_not_started_on_and_jobs_run_on(several: Several) -> None:
    beat = several.folder / "beat"
    program = jobs.script(several.folder, "beating.py", BEATING)
    job_id = several.client.submit(jobs.body(program, args=str(beat))).job_id
    until(beat.exists, "the job runs")
    several.redis.client().flushall()
    for one in several.coordinators:
        assert one.process.wait(START_S) == 3
        assert "Restore its backup" in one.story()
    seen = beat.read_text()
    until(lambda: beat.read_text() > seen, f"{job_id} runs on")


def test_a_redis_that_is_full_takes_nothing_on_and_jobs_go_on_when_there_is_room(
    several: Several, counting: StartCounting
) -> None:
    job = counting()
    redis = several.redis.client()
    redis.config_set("maxmemory", 1)
    with pytest.raises(MindError) as refused:
        several.client.submit(jobs.body("/bin/true"))
    assert refused.value.status is grpc.StatusCode.UNAVAILABLE, refused.value
    redis.config_set("maxmemory", 0)
    later = submit_until_taken(several, within_s=START_S)
    job.more_lines()
    job.end()
    assert job.check().status == job_pb2.Job.COMPLETED
    assert jobs.final(several.client, later).status == job_pb2.Job.COMPLETED


def test_a_redis_that_lost_its_last_writes_costs_what_they_told_and_nothing_else(
    several: Several, counting: StartCounting
) -> None:
    kept = counting()
    several.redis.kill()
    with several.redis.put_back():
        several.redis.start()
        beat = several.folder / "beat"
        program = jobs.script(several.folder, "beating.py", BEATING)
        body = jobs.body(program, args=str(beat))
        lost = submit_until_taken(several, within_s=START_S, given=body, request_id="lost")
        until(beat.exists, lambda: f"it runs\n{several.story()}")
        kept.more_lines()
        several.redis.kill()
    several.redis.start()
    # A lease that nobody knows is stopped, and only then its node takes another.
    later = submit_until_taken(several, within_s=START_S)
    with pytest.raises(MindError, match="no job"):
        several.client.get_job(lost)
    assert jobs.final(several.client, later).status == job_pb2.Job.COMPLETED
    seen = beat.read_text()
    assert several.client.submit(body, request_id="lost").job_id != lost
    until(
        lambda: beat.read_text() > seen, lambda: f"asked again it is a new one\n{several.story()}"
    )
    kept.end()
    ended = jobs.final(several.client, kept.job_id)
    assert (ended.status, ended.attempts_count) == (job_pb2.Job.COMPLETED, 1)
    lines = jobs.lines(several.client, kept.job_id)
    assert lines == [*map(str, range(len(lines) - 1)), f"last {len(lines) - 1}"]
