"""What devices were used for, from outside: work that was lost shows in the job and in its user's usage."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx

from scaimind.v1 import job_pb2
from tests.e2e.test_exit_codes import command, environment
from tests.e2e.test_pause import trains, work_of
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.waiting import until

CLASSES = ("starting", "productive", "checkpointing", "redone", "idle", "paused")


def usage_of(cluster: Cluster, job_id: str) -> dict[str, Any]:
    """In the job's record, over REST."""
    usage: dict[str, Any] = cluster.rest.get(f"jobs/{job_id}").json()["data"]["usage"]
    time = usage["time"]
    assert time["leased_us"] == sum(time[f"{name}_us"] for name in CLASSES)
    return usage


def told(cluster: Cluster, *words: str) -> str:
    """By the command line."""
    env = environment(cluster)
    return subprocess.run(
        command(*words), env=env, capture_output=True, text=True, timeout=150.0, check=True
    ).stdout


def test_what_a_job_lost_is_in_its_record_and_in_the_usage_of_its_user(
    cluster: Cluster, tmp_path: Path
) -> None:
    client = cluster.client
    job_id = trains(cluster, tmp_path)
    running = usage_of(cluster, job_id)
    assert running["time"]["starting_us"] > 0
    assert not running["lost"]
    client.pause(job_id, save_checkpoint=False)
    jobs.reaches(client, job_id, "PAUSED")
    paused = usage_of(cluster, job_id)
    assert [(one["attempt"], one["cause"]) for one in paused["lost"]] == [(1, "PAUSED")]
    assert paused["time"]["redone_us"] == paused["lost"][0]["redone_us"] > 0
    assert paused["time"]["productive_us"] == 0
    assert usage_of(cluster, job_id) == paused, "who holds nothing uses nothing"

    client.resume(job_id)
    jobs.reaches(client, job_id, "TRAINING")
    until(lambda: usage_of(cluster, job_id)["time"]["productive_us"], "it trains again")
    (work_of(cluster, job_id) / "fail").touch()
    assert jobs.final(client, job_id).status == job_pb2.Job.FAILED
    failed = usage_of(cluster, job_id)
    assert [one["cause"] for one in failed["lost"]] == ["PAUSED", "RANK_FAILED"]
    assert sum(one["redone_us"] for one in failed["lost"]) == failed["time"]["redone_us"]
    scraped = httpx.get(f"http://{cluster.metrics}/metrics", trust_env=False, timeout=30).text
    redone = re.search(
        r'^mind_leased_device_seconds_total\{class="redone",queue="default"\} (\S+)', scraped, re.M
    )
    assert redone is not None
    assert float(redone[1]) * 1e6 >= failed["time"]["redone_us"]

    for group_by in ("JOB", "CAUSE", "NODE"):
        query = {"job_id": job_id, "group_by": group_by}
        answer = cluster.rest.get("usage", params=query).json()["data"]
        assert answer["total"] == failed["time"]
    (page,) = [client.usage_page(job_id=job_id, group_by="CAUSE", order_by="redone")]
    assert {one.cause for one in page.groups} == {"PAUSED", "RANK_FAILED"}
    shown = json.loads(told(cluster, "usage", "--by", "JOB", "--job", job_id, "-o", "json"))
    assert shown["total"] == failed["time"]
    assert "REDONE" in told(cluster, "usage", "--job", job_id)
    assert "RANK_FAILED" in told(cluster, "job", job_id)
    assert cluster.rest.get("usage", params={"group_by": "WEEK"}).status_code == 422
