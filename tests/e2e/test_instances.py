"""Instances of partitioned GPUs (MIG): offered one by one, given one to a rank, and gone when they are gone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scaimind import InvalidArgument
from scaimind.v1 import job_pb2
from tests.contract.probes.world import build_library
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.waiting import until

SMALL = "H100-1g.10gb"
SHOW = """
    import json, os
    names = ("RANK", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE")
    print(json.dumps({name: os.environ[name] for name in names}))
    """


def test_a_gang_has_an_instance_for_each_rank_and_whole_types_are_another_thing(
    tmp_path: Path,
) -> None:
    program = jobs.script(tmp_path, "show.py", SHOW)
    with Cluster(tmp_path / "data", devices=f"sim:1xH100,7x{SMALL}") as cluster:
        request = jobs.body(program, gpu_count=3, gpu_type=SMALL)
        job_id = cluster.client.submit(request).job_id
        job = jobs.final(cluster.client, job_id)
        said = [json.loads(line) for line in jobs.lines(cluster.client, job_id)]
        assert job.status == job_pb2.Job.COMPLETED, (job.error, said)
        assert sorted(one["RANK"] for one in said) == ["0", "1", "2"]
        assert {one["LOCAL_RANK"] for one in said} == {"0"}
        seen = {one["CUDA_VISIBLE_DEVICES"] for one in said}
        assert len(seen) == 3
        assert all(one.startswith("MIG-sim-") for one in seen)
        with pytest.raises(InvalidArgument, match="at most 1 on one"):
            cluster.client.submit(jobs.body(program, gpu_count=2, gpu_type="H100"))
        wide = {"framework": {**request["training_config"]["framework"]}}
        wide["framework"]["distributed"] = {"world_size": 1}
        with pytest.raises(InvalidArgument, match="one rank per device"):
            cluster.client.submit(jobs.body(program, gpu_count=2, gpu_type=SMALL, training=wide))
        (node,) = cluster.rest.get("/cluster/nodes").json()["data"]["nodes"]
        assert [one["type"] for one in node["devices"]] == ["H100", *[SMALL] * 7]


def test_a_partitioning_that_changes_is_followed_and_nothing_is_held_against_the_node(
    tmp_path: Path,
) -> None:
    build_library(tmp_path)
    split = tmp_path / "mig"
    split.write_text("1 3")
    settings = {
        "LD_LIBRARY_PATH": str(tmp_path),
        "FAKE_GPUS": "2",
        "FAKE_MIG_FILE": str(split),
    }
    with Cluster(tmp_path / "data", devices="auto", settings=settings) as cluster:
        (node,) = cluster.rest.get("/cluster/nodes").json()["data"]["nodes"]
        path = f"/cluster/nodes/{node['node_id']}"

        def types() -> list[str]:
            return [one["type"] for one in cluster.rest.get(path).json()["data"]["devices"]]

        assert types() == ["H100", SMALL, SMALL, SMALL]
        program = jobs.script(tmp_path, "show.py", SHOW)
        job_id = cluster.client.submit(jobs.body(program, gpu_type=SMALL)).job_id
        assert jobs.final(cluster.client, job_id).status == job_pb2.Job.COMPLETED
        (line,) = jobs.lines(cluster.client, job_id)
        assert (
            json.loads(line)["CUDA_VISIBLE_DEVICES"] == "MIG-00000000-0000-0000-0001-000000000000"
        )
        draft = tmp_path / "mig.new"
        draft.write_text("none")
        draft.replace(split)
        until(lambda: types() == ["H100", "H100"], "both GPUs are whole")
        job_id = cluster.client.submit(jobs.body(program, gpu_count=2, gpu_type="H100")).job_id
        assert jobs.final(cluster.client, job_id).status == job_pb2.Job.COMPLETED
        health = cluster.rest.get(path).json()["data"]["health"]
        assert (health["state"], health.get("score", 0)) == ("HEALTHY", 0)
