"""A training that is paused, resumed, and retried, with real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from scaimind import MindError
from scaimind.v1 import job_pb2
from tests.support import jobs, processes
from tests.support.cluster import Cluster
from tests.support.waiting import until

TRAINS = """
    import time
    from pathlib import Path
    import scaimind

    run = scaimind.init()
    start = int(Path(run.resume_from, "step").read_text()) if run.resume_from else 0
    print("from", start, flush=True)
    for step in run.track(1_000_000, start=start):
        time.sleep(0.01)
        if run.should_stop:
            break
        if run.should_checkpoint:
            with run.checkpoint(step) as folder:
                (folder / "step").write_text(str(step))
        if Path("fail").exists():
            raise SystemExit(3)
        if Path("finish").exists():
            run.done()
            break
    """


def work_of(cluster: Cluster, job_id: str) -> Path:
    """The folder in which the job's ranks run."""
    return cluster.data_dir / "storage" / "jobs" / job_id / "work"


def trains(cluster: Cluster, folder: Path) -> str:
    """A job that trains until it is told to end; once its training has begun."""
    program = jobs.script(folder, "trains.py", TRAINS)
    answer = cluster.client.submit(jobs.body(program, scheduling={"checkpoint_grace_seconds": 30}))
    jobs.reaches(cluster.client, answer.job_id, "TRAINING")
    begins(cluster, answer.job_id, step=0)
    return answer.job_id


def begins(cluster: Cluster, job_id: str, *, step: int) -> None:
    """Waits until the job trains from a step on."""
    line = f"from {step}"
    until(lambda: line in jobs.lines(cluster.client, job_id, follow=False), f"it trains {line}")


def test_a_paused_training_goes_on_from_where_it_was_saved(
    cluster: Cluster, tmp_path: Path
) -> None:
    client = cluster.client
    job_id = trains(cluster, tmp_path)
    assert client.pause(job_id).status == job_pb2.Job.CHECKPOINTING
    paused = jobs.reaches(client, job_id, "PAUSED")
    (checkpoint,) = paused.checkpoints
    assert checkpoint.step > 0
    assert checkpoint.digest.startswith("sha256:")
    with pytest.raises(MindError, match="PAUSED"):
        client.pause(job_id)
    client.resume(job_id)
    jobs.reaches(client, job_id, "TRAINING")
    begins(cluster, job_id, step=checkpoint.step)
    (work_of(cluster, job_id) / "finish").touch()
    ended = jobs.final(client, job_id)
    assert (ended.status, ended.attempts_count) == (job_pb2.Job.COMPLETED, 2)


def test_the_last_checkpoints_of_all_attempts_are_kept_and_the_one_it_goes_on_from(
    cluster: Cluster, tmp_path: Path
) -> None:
    client = cluster.client
    program = jobs.script(tmp_path, "trains.py", TRAINS)
    body = jobs.body(program) | {"output_config": {"keep_checkpoints": 1}}
    job_id = client.submit(body).job_id
    seen: list[job_pb2.Checkpoint] = []
    for _ in range(3):
        begins(cluster, job_id, step=seen[-1].step if seen else 0)
        client.pause(job_id)
        paused = jobs.reaches(client, job_id, "PAUSED")
        seen.append(paused.checkpoints[-1])
        client.resume(job_id)
    kept = [one.checkpoint_id for one in paused.checkpoints]
    assert kept == [one.checkpoint_id for one in seen[1:]]
    there = [Path(one.uri.removeprefix("file://")).exists() for one in seen]
    assert there == [False, True, True]
    client.cancel(job_id)


def test_a_training_that_saves_nothing_runs_on_when_the_pause_has_waited_long_enough(
    cluster: Cluster, tmp_path: Path
) -> None:
    client = cluster.client
    program = jobs.script(tmp_path, "plain.py", "import time\nprint('up')\ntime.sleep(600)\n")
    job_id = client.submit(jobs.body(program, scheduling={"checkpoint_grace_seconds": 1})).job_id
    until(lambda: "up" in jobs.lines(client, job_id, follow=False), "it runs")
    jobs.reaches(client, job_id, "TRAINING")
    client.pause(job_id)
    given_up = jobs.reaches(client, job_id, "TRAINING")
    assert given_up.status_reason.code == "PAUSE_GIVEN_UP"
    assert client.pause(job_id, save_checkpoint=False).status == job_pb2.Job.TRAINING
    paused = jobs.reaches(client, job_id, "PAUSED")
    assert not processes.of_folder(work_of(cluster, job_id))
    assert paused.attempts_count == 1
    assert client.cancel(job_id).status == job_pb2.Job.CANCELLED


def test_a_retry_is_a_child_that_goes_on_from_its_parents_checkpoint(
    cluster: Cluster, tmp_path: Path
) -> None:
    client = cluster.client
    job_id = trains(cluster, tmp_path)
    client.pause(job_id)
    (checkpoint,) = jobs.reaches(client, job_id, "PAUSED").checkpoints
    client.resume(job_id)
    until(
        lambda: f"from {checkpoint.step}" in jobs.lines(client, job_id, follow=False), "it goes on"
    )
    (work_of(cluster, job_id) / "fail").touch()
    assert jobs.final(client, job_id).status == job_pb2.Job.FAILED
    child_id = client.retry(job_id).job_id
    jobs.reaches(client, child_id, "TRAINING")
    line = f"from {checkpoint.step}"
    until(
        lambda: line in jobs.lines(client, child_id, follow=False),
        "it goes on from the parent's checkpoint",
    )
    (work_of(cluster, child_id) / "finish").touch()
    child = jobs.final(client, child_id)
    assert (child.status, child.parent_job_id) == (job_pb2.Job.COMPLETED, job_id)
    assert client.get_job(job_id).status == job_pb2.Job.FAILED
