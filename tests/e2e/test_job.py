"""The main job: submitted over REST, its log over SSE, its outcome; gangs, retries, cancels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scaimind.v1 import job_pb2
from tests.support import jobs, processes
from tests.support.cluster import Cluster
from tests.support.sse import SseReader
from tests.support.waiting import until

NUMBERS = """
    for number in range(500):
        print(number)
    """


def test_a_job_over_rest_runs_from_submit_to_completed_with_its_log_to_the_end(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(tmp_path, "numbers.py", NUMBERS)
    answer = cluster.rest.post("/jobs", json=jobs.body(program, name="numbers"))
    assert answer.status_code == 201, answer.text
    job_id = answer.json()["data"]["job_id"]
    reader = SseReader(cluster.rest, f"/jobs/{job_id}/logs", {"tail": -1})
    events = list(reader.events())
    assert [event.data["message"] for event in events[:-1]] == [str(n) for n in range(500)]
    assert {event.name for event in events[:-1]} == {"log"}
    assert len({event.id for event in events}) == 501
    assert (events[-1].name, events[-1].data["status"]) == ("end", "COMPLETED")
    record = cluster.rest.get(f"/jobs/{job_id}").json()["data"]
    assert record["status"] == "COMPLETED"
    assert record["attempts_count"] == 1
    assert record["started_at"] <= record["completed_at"]


def test_asking_again_after_the_end_of_a_log_is_answered_204(
    cluster: Cluster, tmp_path: Path
) -> None:
    job_id = cluster.client.submit(jobs.body("/bin/true")).job_id
    reader = SseReader(cluster.rest, f"/jobs/{job_id}/logs", {"tail": -1})
    (end,) = reader.events()
    answer = cluster.rest.get(f"/jobs/{job_id}/logs", headers={"last-event-id": end.id})
    assert answer.status_code == 204


def test_metrics_progress_checkpoint_and_model_of_a_training_are_in_its_record(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(
        tmp_path,
        "train.py",
        """
        from pathlib import Path
        import scaimind

        with scaimind.init() as run:
            for step in run.track(20):
                run.log({"loss": 2.0 - step / 20}, step=step)
            with run.checkpoint(step=20) as folder:
                (Path(folder) / "weights.bin").write_bytes(b"w" * 1000)
            (Path(run.output_dir) / "model.bin").write_bytes(b"m")
        """,
    )
    job_id = cluster.client.submit(jobs.body(program)).job_id
    job = jobs.final(cluster.client, job_id)
    said = jobs.lines(cluster.client, job_id)  # to the end: all that it told has come, metrics too
    assert job.status == job_pb2.Job.COMPLETED, (job.error, said)
    job = cluster.client.get_job(job_id)
    assert job.progress == 100
    assert "loss" in job.latest_metrics.values
    (checkpoint,) = job.checkpoints
    assert checkpoint.step == 20
    assert checkpoint.digest.startswith("sha256:")
    assert (jobs.path_of(checkpoint.uri) / "weights.bin").stat().st_size == 1000
    assert (jobs.path_of(job.output_model_uri) / "model.bin").read_bytes() == b"m"
    metrics = cluster.rest.get(f"/jobs/{job_id}/metrics").json()["data"]
    assert metrics["total_points"] == 20


def test_the_ranks_of_a_gang_on_two_nodes_agree_on_their_world(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(
        tmp_path,
        "rank.py",
        """
        import json, os
        names = ("RANK", "LOCAL_RANK", "NODE_RANK", "NNODES", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
        print(json.dumps({name: os.environ[name] for name in (*names, "MASTER_ADDR", "MASTER_PORT")}))
        """,
    )
    request = jobs.body(program, gpu_count=4, resources={"node_count": 2})
    job_id = cluster.client.submit(request).job_id
    job = jobs.final(cluster.client, job_id)
    assert job.status == job_pb2.Job.COMPLETED, job.error
    assert len(set(job.attempt.node_ids)) == 2
    ranks: list[dict[str, Any]] = [json.loads(one) for one in jobs.lines(cluster.client, job_id)]
    ranks.sort(key=lambda one: int(one["RANK"]))
    assert [one["RANK"] for one in ranks] == ["0", "1", "2", "3"]
    assert [one["NODE_RANK"] for one in ranks] == ["0", "0", "1", "1"]
    assert [one["LOCAL_RANK"] for one in ranks] == ["0", "1", "0", "1"]
    for name, value in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2"), ("NNODES", "2")):
        assert {one[name] for one in ranks} == {value}
    assert len({(one["MASTER_ADDR"], one["MASTER_PORT"]) for one in ranks}) == 1


def test_a_retry_goes_on_from_the_checkpoint_of_the_attempt_that_failed(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(
        tmp_path,
        "retry.py",
        """
        import json, os, sys
        from pathlib import Path
        resume = os.environ.get("MIND_RESUME_FROM")
        print("attempt", os.environ["MIND_ATTEMPT"], "resumes", resume is not None)
        if resume is None:
            folder = Path(os.environ["MIND_CHECKPOINT_DIR"]) / "step-7"
            folder.mkdir(parents=True)
            (folder / "state").write_text("seven")
            with open(os.environ["MIND_EVENTS"], "a") as events:
                print(json.dumps({"event": "checkpoint", "step": 7, "path": str(folder)}), file=events)
            sys.exit(3)
        print("found", (Path(resume) / "state").read_text())
        """,
    )
    job_id = cluster.client.submit(jobs.body(program, training={"max_retries": 1})).job_id
    job = jobs.final(cluster.client, job_id)
    shown = jobs.lines(cluster.client, job_id)
    assert job.status == job_pb2.Job.COMPLETED, (job.error, shown)
    assert job.attempts_count == 2
    assert shown == ["attempt 1 resumes False", "attempt 2 resumes True", "found seven"]


def test_a_cancelled_job_that_ignores_sigterm_is_gone_after_its_grace_with_its_children(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(
        tmp_path,
        "stubborn.sh",
        """
        #!/bin/sh
        trap '' TERM
        sleep 600 &
        echo "$$ $!"
        while true; do sleep 600; done
        """,
    )
    body = jobs.body(program, scheduling={"checkpoint_grace_seconds": 1})
    job_id = cluster.client.submit(body).job_id
    (line,) = until(
        lambda: jobs.lines(cluster.client, job_id, follow=False), "the job says its pids"
    )
    pids = [int(word) for word in line.split()]
    answer = cluster.rest.post(f"/jobs/{job_id}/cancel", json={"reason": "enough"})
    assert answer.status_code == 200, answer.text
    job = jobs.final(cluster.client, job_id)
    assert job.status == job_pb2.Job.CANCELLED
    until(lambda: not any(map(processes.is_alive, pids)), "all of the job is gone")
    again = cluster.rest.post(f"/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "WRONG_STATUS")


def test_a_drained_node_takes_no_jobs_until_it_is_enabled(cluster: Cluster, tmp_path: Path) -> None:
    nodes = cluster.rest.get("/cluster/nodes").json()["data"]["nodes"]
    first, second = sorted(node["node_id"] for node in nodes)
    path = f"/cluster/nodes/{first}"
    answer = cluster.rest.post(f"{path}/drain", json={"reason": "new memory"})
    assert answer.status_code == 200, answer.text
    try:
        shown = until(lambda: _drained(cluster, path), "the node is DRAINED")
        assert shown["status_reason"]["message"] == "new memory"
        job_ids = [cluster.client.submit(jobs.body("/bin/true")).job_id for _ in range(6)]
        ended = [jobs.final(cluster.client, job_id) for job_id in job_ids]
        assert {node for job in ended for node in job.attempt.node_ids} == {second}
    finally:
        answer = cluster.rest.post(f"{path}/enable")
    assert answer.json()["data"]["status"] == "READY", answer.text


def _drained(cluster: Cluster, path: str) -> dict[str, Any] | None:
    node: dict[str, Any] = cluster.rest.get(path).json()["data"]
    return node if node["status"] == "DRAINED" else None
