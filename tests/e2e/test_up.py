"""`scaimind up`: what it leaves on disk, what it shows, and that it leaves nothing running."""

from __future__ import annotations

import stat

import httpx

from tests.e2e.conftest import MakeCluster
from tests.support import jobs, processes


def test_a_fresh_data_directory_gets_an_admin_key_that_only_its_owner_reads(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    path = cluster.data_dir / "admin.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cluster.key.startswith("sgk_")
    url = f"http://{cluster.http}/v1/modules/scaimind/jobs"
    assert httpx.get(url, trust_env=False, timeout=30).status_code == 401
    headers = {"authorization": f"Bearer {cluster.key}"}
    assert httpx.get(url, headers=headers, trust_env=False, timeout=30).status_code == 200
    key = cluster.key
    cluster.stop()
    cluster.start()
    assert cluster.key == key
    assert cluster.rest.get("/jobs").status_code == 200


def test_its_default_queue_preempts_until_its_admin_says_otherwise(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    (queue,) = cluster.rest.get("/cluster/queues").json()["data"]["queues"]
    assert (queue["name"], queue["preempts"]) == ("default", True)
    assert cluster.rest.delete("/cluster/queues/default").status_code == 200
    cluster.stop()
    cluster.start()
    assert cluster.rest.get("/cluster/queues").json()["data"]["queues"] == []


def test_simulated_devices_are_marked_wherever_they_are_shown_and_run_jobs_all_the_same(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(devices="sim:8xH100", nodes=2)
    totals = cluster.rest.get("/cluster").json()["data"]
    assert (totals["simulated"], totals["total_devices"]) == (True, 16)
    (kind,) = totals["accelerators"]
    assert (kind["type"], kind["total"], kind["simulated"]) == ("H100", 16, True)
    nodes = cluster.rest.get("/cluster/nodes").json()["data"]["nodes"]
    assert [node["simulated"] for node in nodes] == [True, True]
    assert all(device["simulated"] for node in nodes for device in node["devices"])
    job_id = cluster.client.submit(jobs.body("/bin/true", gpu_count=16, gpu_type="H100")).job_id
    assert jobs.final(cluster.client, job_id).attempt.node_ids == [
        node["node_id"] for node in nodes
    ]


def test_a_stopped_cluster_whose_jobs_have_ended_leaves_no_process(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    job_id = cluster.client.submit(jobs.body("/bin/true")).job_id
    jobs.final(cluster.client, job_id)
    assert cluster.stop() == 0
    left = processes.left_of(cluster.data_dir)
    assert not left, processes.describe(left)
