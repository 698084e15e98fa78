"""The queue and the cluster as users see them: over REST, over gRPC and on the command line alike."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from scaimind.v1 import job_pb2
from tests.e2e.conftest import MakeCluster, is_idle
from tests.e2e.test_exit_codes import command, environment
from tests.support import jobs
from tests.support.cluster import ROOT, Cluster
from tests.support.waiting import until

TYPE = "H100"
EXPECTED_S = 600


def data_of(cluster: Cluster, path: str) -> Any:
    answer = cluster.rest.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def printed(cluster: Cluster, *words: str) -> Any:
    call = command("-o", "json", *words)
    return json.loads(subprocess.check_output(call, cwd=ROOT, env=environment(cluster)))


def placed(view: Any) -> list[tuple[str, int]]:
    """The queue's only view: which job stands where. All of them know how long they wait."""
    (queue,) = view["queues"]
    for job in queue["jobs"]:
        assert 0 < job["estimated_wait_seconds"] <= 3 * EXPECTED_S, job
        assert job["status_reason"]["code"] == "WAITING_FOR_CAPACITY"
    return [(job["job_id"], job["position"]) for job in queue["jobs"]]


def test_queue_and_cluster_tell_the_same_over_rest_grpc_and_on_the_command_line(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(devices=f"sim:2x{TYPE}")
    program = jobs.script(tmp_path, "sleeps.sh", "#!/bin/sh\nexec sleep 600\n")

    def submit(priority: int) -> str:
        body = jobs.body(
            program,
            gpu_count=2,
            gpu_type=TYPE,
            training={"priority": priority},
            scheduling={"queue_name": "night", "expected_duration_seconds": EXPECTED_S},
        )
        return cluster.client.submit(body).job_id

    running = submit(5)
    jobs.reaches(cluster.client, running, "TRAINING")
    low, high = submit(2), submit(4)

    def is_foreseen() -> bool:
        queues = cluster.client.queue("night").queues
        return all(job.HasField("estimated_wait_seconds") for job in queues[0].jobs)

    until(is_foreseen, "the waits of all jobs are known")
    over_rest, printed_view = data_of(cluster, "/queue"), printed(cluster, "queue")
    assert data_of(cluster, "/queue?queue_name=night")["queues"][0]["depth"] == 2
    assert placed(over_rest) == placed(printed_view) == [(high, 1), (low, 2)]
    for view in (over_rest, printed_view):
        assert (view["depth"], view["running"], view["queues"][0]["running"]) == (2, 1, 1)
    (queue,) = cluster.client.queue().queues
    assert [(job.job_id, job.position) for job in queue.jobs] == [(high, 1), (low, 2)]
    waits = [job["estimated_wait_seconds"] for job in over_rest["queues"][0]["jobs"]]
    assert waits == sorted(waits)
    record = data_of(cluster, f"/jobs/{high}")
    assert 0 < record["estimated_wait_seconds"] <= EXPECTED_S

    totals = cluster.client.cluster()
    for shown in (data_of(cluster, "/cluster"), printed(cluster, "cluster")):
        assert shown["jobs_by_status"] == {"TRAINING": 1, "QUEUED": 2}
        assert (shown["total_nodes"], shown["ready_nodes"], shown["queue_depth"]) == (1, 1, 2)
        assert (shown["total_devices"], shown["free_devices"]) == (2, 0)
        assert shown["accelerators"] == [{"type": TYPE, "total": 2, "free": 0, "simulated": True}]
    assert (totals.total_devices, totals.free_devices, totals.queue_depth) == (2, 0, 2)
    for job_id in (low, high, running):
        cluster.client.cancel(job_id)
    jobs.reaches(cluster.client, running, "CANCELLED")
    until(lambda: is_idle(cluster), "its rank has ended")
    assert data_of(cluster, "/queue")["depth"] == 0
    assert cluster.client.get_job(running).status == job_pb2.Job.CANCELLED
