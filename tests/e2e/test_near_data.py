"""A job whose data take long to fetch waits for the node that holds them: real programs, simulated devices.

How fast nodes fetch is what earlier agents have written down, so that a small file takes them long.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from scaimind.v1 import job_pb2
from tests.e2e.test_moved import node_of
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.files import Answer, serving
from tests.support.waiting import until

DATA = b'{"text": "one"}\n' * 400_000
FETCH_S = 150
SLOW = {"size_bytes": 10 << 20, "time_s": FETCH_S * (10 << 20) / len(DATA)}


def test_a_job_waits_for_the_node_that_holds_its_data_and_says_so(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    for number in range(2):
        cache = data_dir / "nodes" / f"{socket.gethostname()}-{number}" / "cache"
        cache.mkdir(parents=True)
        (cache / "pace.json").write_text(json.dumps(SLOW))
    holds = jobs.script(tmp_path, "holds", "#!/bin/sh\nuntil [ -e go ]; do sleep 0.05; done\n")
    reads = jobs.script(tmp_path, "reads", '#!/bin/sh\nwc -c <"$MIND_DATA_0_PATH"\n')
    settings = {"MIND_DATA_NETWORKS": "127.0.0.1/32"}
    with (
        serving({"/train.jsonl": Answer(DATA)}) as server,
        Cluster(data_dir, settings=settings, devices="sim:2xH100", nodes=2) as cluster,
    ):
        first = cluster.client.submit(reading(holds, server.url, expected_s=60)).job_id
        jobs.reaches(cluster.client, first, "TRAINING")
        until(lambda: holders(cluster) == {node_of(cluster, first)}, "one node holds the data")
        second = cluster.client.submit(reading(reads, server.url)).job_id
        told = cluster.rest.get(f"/jobs/{second}/explain").json()["data"]
        assert [one["code"] for one in told["blockers"]] == ["DATA_AWAITED"], told
        assert node_of(cluster, first) in told["blockers"][0]["message"]
        other = cluster.client.submit(jobs.body("/bin/true", gpu_type="H100", gpu_count=2)).job_id
        assert jobs.final(cluster.client, other).status == job_pb2.Job.COMPLETED
        assert node_of(cluster, other) != node_of(cluster, first)
        assert cluster.client.get_job(second).status == job_pb2.Job.QUEUED
        (data_dir / "storage" / "jobs" / first / "work" / "go").touch()
        for job_id in (first, second):
            assert jobs.final(cluster.client, job_id).status == job_pb2.Job.COMPLETED
        assert node_of(cluster, second) == node_of(cluster, first)
        assert set(jobs.lines(cluster.client, second)) == {str(len(DATA))}


def reading(program: Path, url: str, *, expected_s: int = 0) -> dict[str, Any]:
    """A job of both devices of a node that reads the data."""
    body = jobs.body(program, gpu_type="H100", gpu_count=2)
    body["data_config"] = {"sources": [{"path": f"{url}/train.jsonl"}]}
    body["scheduling_config"] = {"expected_duration_seconds": expected_s}
    return body


def holders(cluster: Cluster) -> set[str]:
    """The nodes that hold something."""
    nodes = cluster.rest.get("/data/cache").json()["data"]["nodes"]
    return {one["node_id"] for one in nodes if one["entries"]}
