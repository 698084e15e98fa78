"""Who runs goes on elsewhere so that a job fits: real programs, simulated devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaimind.v1 import job_pb2
from tests.e2e.test_pause import TRAINS, work_of
from tests.e2e.test_taken import record, said, submitted
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.waiting import until


def test_a_training_goes_on_from_its_checkpoint_on_another_node_so_that_a_job_fits(
    tmp_path: Path,
) -> None:
    """Two nodes of two devices, of each of which one is free; the job needs both of one."""
    trains = jobs.script(tmp_path, "trains.py", TRAINS)
    settings = {"MIND_MIN_RUN_S": "0"}
    with Cluster(tmp_path / "data", devices="sim:2xH100", nodes=2, settings=settings) as cluster:
        put = cluster.rest.put("/cluster/queues/default", json={"preempts": True})
        assert put.status_code == 200, put.text
        running = [submitted(cluster, on_one_node(trains)) for _ in range(3)]
        for job_id in running:
            until(lambda id=job_id: said(cluster, id, "from") == ["0"], "it trains")  # type: ignore[misc]
        places = {job_id: node_of(cluster, job_id) for job_id in running}
        twins = [x for x in running if sum(y == places[x] for y in places.values()) == 2]
        (work_of(cluster, twins[0]) / "finish").touch()
        assert jobs.final(cluster.client, twins[0]).status == job_pb2.Job.COMPLETED
        left = [x for x in running if x != twins[0]]
        assert len({node_of(cluster, x) for x in left}) == 2

        whole = submitted(cluster, on_one_node("/bin/true", gpu_count=2))
        assert jobs.final(cluster.client, whole).status == job_pb2.Job.COMPLETED
        until(lambda: any(len(said(cluster, x, "from")) == 2 for x in left), "one goes on")
        (moved,) = (x for x in left if len(said(cluster, x, "from")) == 2)
        (stays,) = (x for x in left if x != moved)
        assert node_of(cluster, moved) == node_of(cluster, stays) == places[stays]
        assert int(said(cluster, moved, "from")[1]) > 0, "from its checkpoint"
        assert record(cluster, stays)["attempts_count"] == 1
        (told,) = cluster.rest.get(f"/jobs/{moved}/explain").json()["data"]["preemptions"]
        assert (told["rule"], told["for_job_id"]) == ("MOVED", whole)
        for job_id in left:
            (work_of(cluster, job_id) / "finish").touch()
            assert jobs.final(cluster.client, job_id).status == job_pb2.Job.COMPLETED


def on_one_node(program: Path | str, *, gpu_count: int = 1) -> dict[str, Any]:
    """A job whose devices are to be of one node."""
    resources = {"node_count": 1}
    return jobs.body(program, gpu_type="H100", gpu_count=gpu_count, resources=resources)


def node_of(cluster: Cluster, job_id: str) -> str:
    """On which node a job runs."""
    (node_id,) = record(cluster, job_id)["attempt"]["node_ids"]
    return str(node_id)
