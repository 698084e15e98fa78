"""Who takes devices from whom, and who shares one, from outside: real programs, a simulated device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaimind.v1 import job_pb2
from tests.e2e.test_pause import TRAINS, work_of
from tests.support import jobs
from tests.support.cluster import ROOT, Cluster
from tests.support.waiting import until

SHARES = """
    import os, time
    from pathlib import Path

    print("on", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    print("part", os.environ["MIND_GPU_FRACTION"], flush=True)
    while not Path("finish").exists():
        time.sleep(0.05)
    """


DEAF = """
    import json, os, time
    from pathlib import Path

    every_s, began = 12, time.monotonic()
    resume = os.environ.get("MIND_RESUME_FROM")
    step = first = int(Path(resume, "step").read_text()) if resume else 0
    print("from", first, flush=True)
    near = first
    while not Path("finish").exists():
        time.sleep(0.05)
        passed = (time.monotonic() - began) / every_s - (step - first)
        if passed > 0.6 and near <= step:
            near = step + 1
            print("nears", near, flush=True)
        if passed < 1:
            continue
        step += 1
        folder = Path(os.environ["MIND_CHECKPOINT_DIR"], f"step-{step}")
        folder.mkdir()
        (folder / "step").write_text(str(step))
        with open(os.environ["MIND_EVENTS"], "a") as events:
            told = {"event": "checkpoint", "step": step, "path": str(folder)}
            events.write(json.dumps(told) + "\\n")
    """


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one device, as `scaimind up` makes it."""
    folder = tmp_path_factory.mktemp("one") / "data"
    with Cluster(folder, devices="sim:1xH100") as running:
        yield running


def submitted(cluster: Cluster, body: dict[str, Any]) -> str:
    """Over REST."""
    answer = cluster.rest.post("/jobs", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["job_id"])


def urgent(cluster: Cluster, program: Path | str, *, priority: int, **scheduling: object) -> str:
    """A job that wants the device, and may take it from others."""
    body = jobs.body(
        program, gpu_type="H100", training={"priority": priority}, scheduling=scheduling
    )
    return submitted(cluster, body)


def record(cluster: Cluster, job_id: str) -> dict[str, Any]:
    """Over REST."""
    found: dict[str, Any] = cluster.rest.get(f"/jobs/{job_id}").json()["data"]
    return found


def said(cluster: Cluster, job_id: str, word: str) -> list[str]:
    """What lines of the job's log say after a word."""
    lines = jobs.lines(cluster.client, job_id, follow=False)
    return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]


def test_a_job_of_high_priority_takes_the_device_and_the_other_goes_on_where_it_was(
    one_device: Cluster, tmp_path: Path
) -> None:
    client = one_device.client
    trains = jobs.script(tmp_path, "trains.py", TRAINS)
    low = urgent(one_device, trains, priority=1)
    jobs.reaches(client, low, "TRAINING")
    until(lambda: said(one_device, low, "from") == ["0"], "it trains")
    high = urgent(one_device, "/bin/true", priority=9)
    assert jobs.final(client, high).status == job_pb2.Job.COMPLETED
    until(lambda: len(said(one_device, low, "from")) == 2, "it trains again")
    (_, step) = said(one_device, low, "from")
    assert int(step) > 0, "from its checkpoint"
    now = record(one_device, low)
    assert (now["status"], now["attempts_count"]) == ("TRAINING", 2)
    assert now["checkpoints"]
    (work_of(one_device, low) / "finish").touch()
    assert jobs.final(client, low).status == job_pb2.Job.COMPLETED


def test_a_training_that_hears_nothing_is_waited_for_as_its_next_checkpoint_is_near(
    one_device: Cluster, tmp_path: Path
) -> None:
    """It saves every twelve seconds, whoever asks, and is given one second of grace."""
    client = one_device.client
    deaf = jobs.script(tmp_path, "deaf.py", DEAF)
    low = urgent(one_device, deaf, priority=1, checkpoint_grace_seconds=1)
    until(lambda: len(record(one_device, low).get("checkpoints", ())) == 2, "it saves")
    until(lambda: "3" in said(one_device, low, "nears"), "it is more than half of the way")
    high = urgent(one_device, "/bin/true", priority=9)
    until(lambda: record(one_device, low)["status"] == "CHECKPOINTING", "it is to give way")
    assert "one that is near" in record(one_device, low)["status_reason"]["message"]
    assert "as a checkpoint is near" in record(one_device, high)["status_reason"]["message"]
    assert jobs.final(client, high).status == job_pb2.Job.COMPLETED
    until(lambda: said(one_device, low, "from") == ["0", "3"], "it goes on from its third one")
    (told,) = one_device.rest.get(f"/jobs/{low}/explain").json()["data"]["preemptions"]
    assert told["checkpoint_awaited_until"] > told["at"]
    (work_of(one_device, low) / "finish").touch()
    assert jobs.final(client, low).status == job_pb2.Job.COMPLETED


def test_two_halves_of_a_device_run_side_by_side_and_a_third_waits(
    one_device: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(tmp_path, "shares.py", SHARES)
    body = jobs.body(program, gpu_type="H100", resources={"gpu_fraction": 0.5})
    first = submitted(one_device, body)
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(body))
    told = subprocess.run(
        [sys.executable, "-m", "scaimind.cli", "submit", str(file), "-o", "json"],
        cwd=ROOT,
        env={**os.environ, "MIND_GRPC": one_device.grpc, "MIND_API_KEY": one_device.key},
        capture_output=True,
        text=True,
        check=True,
    )
    second = str(json.loads(told.stdout)["job_id"])
    halves = [["0.5"], ["0.5"]]
    until(lambda: [said(one_device, one, "part") for one in (first, second)] == halves, "both run")
    assert said(one_device, first, "on") == said(one_device, second, "on")
    third = submitted(one_device, body)
    assert record(one_device, third)["status"] == "QUEUED"
    (device,) = one_device.rest.get("/cluster").json()["data"]["accelerators"]
    assert device["free"] == 0
    (work_of(one_device, first) / "finish").touch()
    until(lambda: said(one_device, third, "part") == ["0.5"], "it takes the half that came free")
    for job_id in (second, third):
        (work_of(one_device, job_id) / "finish").touch()
    for job_id in (first, second, third):
        assert jobs.final(one_device.client, job_id).status == job_pb2.Job.COMPLETED
        assert record(one_device, job_id)["resource_config"]["gpu_fraction"] == 0.5
