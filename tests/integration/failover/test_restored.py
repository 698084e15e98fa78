"""A Redis that was emptied is put back as a backup has it, and jobs go on."""

from __future__ import annotations

import subprocess
import sys

from scaimind.v1 import job_pb2
from tests.integration.failover.conftest import StartCounting
from tests.support import jobs
from tests.support.several import START_S, Several
from tests.support.waiting import until

Job = job_pb2.Job


def backup(several: Several, verb: str, *words: str) -> None:
    where = ("--store", several.redis.url, "--data-dir", str(several.coordinators[0].data_dir))
    command = [sys.executable, "-m", "coordinator.backup", verb]
    subprocess.run([*command, str(several.folder / "backup"), *where, *words], check=True)


def test_a_redis_that_was_emptied_goes_on_from_a_backup_and_what_runs_never_notices(
    several: Several, counting: StartCounting
) -> None:
    before = several.client.submit(jobs.body("/bin/true")).job_id
    assert jobs.final(several.client, before).status == Job.COMPLETED
    running = counting()
    backup(several, "make")  # while they write
    running.more_lines()
    several.redis.client().flushall()
    for one in several.coordinators:
        assert one.process.wait(START_S) == 3
    backup(several, "restore")
    for one in several.coordinators:
        one.start()
    until(
        lambda: any(one.serves() for one in several.coordinators),
        lambda: f"one of them leads\n{several.story()}",
        within_s=START_S,
    )
    running.end()
    # The very same process: one attempt, and each of its lines once, those since the backup as well.
    ended = jobs.final(several.client, running.job_id)
    assert (ended.status, ended.attempts_count) == (Job.COMPLETED, 1)
    lines = jobs.lines(several.client, running.job_id)
    assert lines == [*map(str, range(len(lines) - 1)), f"last {len(lines) - 1}"]
    assert several.client.get_job(before).status == Job.COMPLETED
    after = several.client.submit(jobs.body("/bin/true")).job_id
    assert jobs.final(several.client, after).status == Job.COMPLETED
