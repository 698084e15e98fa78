"""The command line as a shell sees it: real processes, their output and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support import jobs
from tests.support.cluster import ROOT, Cluster
from tests.support.waiting import until

Run = Callable[..., subprocess.CompletedProcess[str]]
LIMIT_S = 150.0


def environment(cluster: Cluster) -> dict[str, str]:
    return {**os.environ, "MIND_GRPC": cluster.grpc, "MIND_API_KEY": cluster.key}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "scaimind.cli", *words]


@pytest.fixture
def run(cluster: Cluster) -> Run:
    def once(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words),
            cwd=ROOT,
            env=environment(cluster) | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    return once


def job_file(folder: Path, name: str, text: str) -> str:
    program = jobs.script(folder, f"{name}.py", text)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(jobs.body(program, name=name)))
    return str(path)


def test_a_job_that_completes_is_0_and_one_that_fails_is_1(run: Run, tmp_path: Path) -> None:
    good = job_file(tmp_path, "good", "print('well')\n")
    bad = job_file(tmp_path, "bad", "raise SystemExit(7)\n")
    followed = run("submit", good, "--follow")
    assert (followed.returncode, followed.stdout.splitlines()[-1]) == (0, "well")
    assert "COMPLETED" in followed.stderr
    both = run("submit", good, bad, "-o", "json")
    assert both.returncode == 0, both.stderr
    first, second = (each["job"]["job_id"] for each in json.loads(both.stdout)["results"])
    assert run("wait", first).returncode == 0
    failed = run("wait", second)
    assert failed.returncode == 1
    assert failed.stdout.splitlines()[-1].startswith(f"{second} FAILED: ")
    assert "the minute before" in run("job", second).stdout
    assert run("logs", "-f", second).returncode == 1
    assert run("logs", second).returncode == 0
    wrong = run("pause", first)
    assert wrong.returncode == 5
    assert wrong.stderr.startswith("error: ")
    assert "COMPLETED" in wrong.stderr
    assert "(WRONG_STATUS)" in wrong.stderr


def test_wrong_usage_is_2_with_the_line_at_fault(run: Run, tmp_path: Path) -> None:
    assert run("nonsense").returncode == 2
    for words in ([], ["keys"]):
        nothing = run(*words)
        assert nothing.returncode == 2
        assert nothing.stderr.splitlines()[0].startswith("Usage: scaimind"), "help, as it is"
    path = tmp_path / "job.yaml"
    path.write_text("name: x\nresource_config:\n  gpu_cout: 1\n")
    wrong = run("submit", str(path))
    assert wrong.returncode == 2
    assert f"{path}:3: resource_config.gpu_cout: unknown field; did you mean gpu_count?" in (
        wrong.stderr
    )
    path.write_text(yaml.safe_dump(jobs.body("/x.py", gpu_count=999)))
    never = run("submit", str(path))
    assert never.returncode == 2
    assert "(NEVER_FITS)" in never.stderr


def test_of_several_jobs_those_that_are_no_good_are_shown_with_their_line_and_the_code_is_2(
    run: Run, cluster: Cluster, tmp_path: Path
) -> None:
    held = jobs.body("/bin/true", scheduling={"start_after": "2100-01-01T00:00:00Z"})
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump_all([held, held | {"name": ""}, held]))
    done = run("submit", str(path), "-o", "json")
    assert done.returncode == 2
    first, bad, last = json.loads(done.stdout)["results"]
    assert bad["error"]["code"] == "INVALID_ARGUMENT"
    assert bad["error"]["details"][0]["field"].endswith(": name")
    for one in (first, last):
        cluster.client.cancel(one["job"]["job_id"])
    shown = run("submit", str(path), "--dry-run")
    assert shown.returncode == 2
    assert shown.stdout.count("refused") == 1
    assert ": name: " in shown.stdout
    whole = run("submit", str(path), "--atomic")
    assert whole.returncode == 2
    assert ": name: " in whole.stderr


def test_what_is_not_there_is_3_and_what_is_not_allowed_is_4(run: Run) -> None:
    for words in (["job", "job_none"], ["nodes", "none"], ["logs", "-f", "job_none"]):
        assert run(*words).returncode == 3, words
    assert run("jobs", MIND_API_KEY="sgk_wrong").returncode == 4
    made = run("keys", "create", "--tenant", "t", "--permission", "view", "-o", "json")
    viewer = json.loads(made.stdout)["key"]
    denied = run("cancel", "job_none", MIND_API_KEY=viewer)
    assert denied.returncode == 4
    assert "scaimind:manage" in denied.stderr
    assert "Traceback" not in denied.stderr


def test_a_coordinator_that_is_away_is_6_and_so_is_a_wait_that_runs_out(
    run: Run, cluster: Cluster, tmp_path: Path
) -> None:
    away = run("jobs", "--server", "127.0.0.1:1")
    assert away.returncode == 6
    assert "no coordinator answers at 127.0.0.1:1" in away.stderr
    held = cluster.client.submit(
        jobs.body(tmp_path, scheduling={"start_after": "2100-01-01T00:00:00Z"})
    ).job_id
    assert run("wait", held, "--timeout", "0.2").returncode == 6
    cluster.client.cancel(held)


def test_ctrl_c_is_130_and_leaves_the_job_alone(cluster: Cluster, tmp_path: Path) -> None:
    program = jobs.script(
        tmp_path, "stays.py", "import signal\nprint('hello', flush=True)\nsignal.pause()\n"
    )
    job_id = cluster.client.submit(jobs.body(program)).job_id
    for words in (["wait", job_id], ["logs", "-f", job_id]):
        process = subprocess.Popen(
            command(*words),
            cwd=ROOT,
            env=environment(cluster),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline()  # it is under way
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, said) == (130, "")
    jobs.reaches(cluster.client, job_id, "TRAINING")
    cluster.client.cancel(job_id)


def test_jobs_are_changed_one_or_all_that_match(run: Run, cluster: Cluster, tmp_path: Path) -> None:
    paths = [job_file(tmp_path, name, "print('never')\n") for name in ("m1", "m2")]
    later = ("--set", "scheduling_config.start_after=2099-01-01T00:00:00Z")
    sent = run("submit", *paths, *later, "--set", "labels.team=nlp", "-o", "json")
    assert sent.returncode == 0, sent.stderr
    first, second = (each["job"]["job_id"] for each in json.loads(sent.stdout)["results"])
    changed = run("update", first, "--priority", "9", "--max-runtime", "2h", "-o", "json")
    assert changed.returncode == 0, changed.stderr
    assert json.loads(changed.stdout)["resource_config"]["max_runtime_seconds"] == 7200
    assert run("update", first).returncode == 2, "nothing to change"
    assert run("bulk", "cancel").returncode == 2, "nothing is selected"
    answered = cluster.rest.patch(f"/jobs/{second}", json={"priority": 7})
    assert (answered.status_code, answered.json()["data"]["priority"]) == (200, 7)
    all_of_them = {"action": "UPDATE", "label": ["team=nlp"], "update": {"priority": 3}}
    answered = cluster.rest.post("/jobs/bulk", json=all_of_them)
    assert answered.status_code == 200
    assert [one["status"] for one in answered.json()["data"]["results"]] == ["PENDING", "PENDING"]
    told = run("bulk", "cancel", "--label", "team=nlp", "--dry-run")
    assert {first, second} <= set(told.stdout.split())
    done = run("bulk", "cancel", "--label", "team=nlp")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("CANCELLED") == 2
    none = run("bulk", "cancel", "--label", "team=nlp")
    assert none.returncode == 0
    assert "0 jobs" in none.stdout + none.stderr


def test_an_admin_sets_queues_over_rest_and_by_the_command_line(
    run: Run,
    cluster: Cluster,
) -> None:
    body = {"order": "FAIR", "max_devices": 64, "tenant_limits": {"*": 32}}
    answered = cluster.rest.put("/cluster/queues/research", json=body)
    assert answered.status_code == 200
    data = answered.json()["data"]
    assert (data["order"], data["tenant_limits"], data["version"]) == ("FAIR", {"*": 32}, 1)
    words = ("--below", "research", "--weight", "3", "--tenant", "acme=8")
    made = run("set-queue", "vision", *words)
    assert made.returncode == 0, made.stderr
    assert "acme 8" in made.stdout
    listed = run("queues")
    assert {"research", "vision", "FAIR"} <= set(listed.stdout.split())
    assert run("remove-queue", "research").returncode == 5, "one is below it"
    assert run("remove-queue", "vision").returncode == 0
    gone = cluster.rest.delete("/cluster/queues/research")
    assert (gone.status_code, gone.json()["data"]) == (200, {"name": "research"})
    assert run("set-queue", "x", "--tenant", "acme").returncode == 2
    left = cluster.rest.get("/cluster/queues").json()["data"]["queues"]
    assert [(one["name"], one["preempts"]) for one in left] == [("default", True)], (
        "as `up` sets it"
    )


def test_an_admin_takes_a_device_out_and_it_comes_back_once_a_canary_has_passed(
    run: Run, cluster: Cluster
) -> None:
    [node, *_] = cluster.rest.get("/cluster/nodes").json()["data"]["nodes"]
    node_id = node["node_id"]
    device_id = next(one["device_id"] for one in node["devices"] if one["free_fraction"] == 1)

    def state() -> str:
        shown = cluster.rest.get(f"/cluster/nodes/{node_id}").json()["data"]
        [health] = [x["health"] for x in shown["devices"] if x["device_id"] == device_id]
        return str(health["state"])

    said = run("health", node_id, "QUARANTINED", "--device", device_id, "--reason", "it smells")
    assert said.returncode == 0, said.stderr
    assert "an admin said QUARANTINED: it smells" in said.stdout
    assert state() == "QUARANTINED"
    body = {"state": "PROBATION", "device_id": device_id}
    tried = cluster.rest.post(f"/cluster/nodes/{node_id}/health", json=body)
    assert tried.status_code == 200, tried.text
    until(lambda: state() == "SUSPECT", "the canary to pass", within_s=240)
    assert "CANARY_PASSED" in run("health", node_id).stdout
    assert run("health", node_id, "HEALTHY").returncode == 0
    assert state() == "HEALTHY"
    assert run("health", "nobody", "HEALTHY").returncode == 3
