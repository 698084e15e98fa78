"""Section 8: every verb of the command line against a cluster, and that its output is REST's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaimind.cli.main import main
from tests.e2e.contract.conftest import Caller
from tests.e2e.contract.test_rest import LATER, data
from tests.support import jobs

Say = Callable[..., Any]
VERBS = (
    "up", "submit", "jobs", "job", "logs", "metrics", "pause", "resume", "cancel", "retry", "wait",
    "explain", "queue", "cluster", "nodes", "drain", "enable", "evaluate", "data", "cache", "keys",
)  # fmt: skip


@pytest.fixture
def say(caller: Caller, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs a command that prints JSON; gives what it printed."""
    monkeypatch.setenv("MIND_GRPC", caller.cluster.grpc)
    monkeypatch.setenv("MIND_API_KEY", caller.key)

    def once(*words: str, code: int = 0, form: str = "json") -> Any:
        found = main([*words, "-o", form])
        shown = capsys.readouterr()
        assert found == code, (words, shown)
        if form == "json":
            return json.loads(shown.out) if shown.out else shown.err
        return yaml.safe_load(shown.out) if form == "yaml" else shown.out

    return once


@pytest.fixture
def job_file(tmp_path: Path) -> Callable[..., str]:
    def write(program: str = "/bin/true", **more: Any) -> str:
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(jobs.body(program, **more)))
        return str(path)

    return write


def test_every_verb_is_there_with_help_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        text = capsys.readouterr().out
        if verb in ("data", "keys"):
            words = {"data": ["validate"], "keys": ["create", "list", "revoke"]}[verb]
            for word in words:
                assert main([verb, word, "--help"]) == 0
                assert "Example: scaimind " in capsys.readouterr().out
        else:
            assert "Example: scaimind " in text, verb


def test_a_job_by_the_verbs_of_its_life(
    say: Say, caller: Caller, job_file: Callable[..., str]
) -> None:
    job_id = say("submit", job_file(scheduling=LATER))["job_id"]
    assert say("job", job_id) == data(caller.rest.get(f"/jobs/{job_id}"))
    assert say("job", job_id, form="yaml")["job_id"] == job_id
    assert job_id in say("job", job_id, form="table")
    assert [job["job_id"] for job in say("jobs")["jobs"]] == [job_id]
    assert say("pause", job_id)["status"] == "PAUSED"
    assert say("resume", job_id)["status"] == "PENDING"
    assert say("explain", job_id)["blockers"][0]["code"] == "WAITING_FOR_START_TIME"
    (queue,) = say("queue")["queues"]
    assert job_id in {row["job_id"] for row in queue["jobs"]}
    assert say("cancel", job_id, "--reason", "enough")["status"] == "CANCELLED"
    assert "WRONG_STATUS" in say("retry", job_id, code=5)
    assert say("wait", job_id, code=1)["status"] == "CANCELLED"
    assert "JOB_NOT_FOUND" in say("job", "none", code=3)


def test_what_a_job_left_and_its_retry(
    say: Say, caller: Caller, tmp_path: Path, job_file: Callable[..., str]
) -> None:
    program = jobs.script(
        tmp_path,
        "once.py",
        f"""
        import sys, scaimind
        from pathlib import Path
        scaimind.init().log({{"loss": 1.0}}, step=1)
        print("said", flush=True)
        tried = Path("{tmp_path}/tried")
        if not tried.exists():
            tried.touch()
            sys.exit(3)
        """,
    )
    job_id = say("submit", job_file(str(program)))["job_id"]
    assert say("wait", job_id, code=1)["error"]["exit_code"] == 3
    assert jobs.lines(caller.grpc, job_id) == ["said"]  # to the end: its metrics have come as well
    assert say("metrics", job_id) == data(caller.rest.get(f"/jobs/{job_id}/metrics"))
    assert say("logs", job_id, form="table").splitlines() == ["said"]
    child = say("retry", job_id)
    assert child["parent_job_id"] == job_id
    assert say("wait", child["job_id"])["status"] == "COMPLETED"


def test_the_cluster_by_its_verbs(say: Say, caller: Caller, tmp_path: Path) -> None:
    assert set(say("cluster")) == set(data(caller.rest.get("/cluster")))
    node_id = say("nodes")["nodes"][0]["node_id"]
    assert say("nodes", node_id)["node_id"] == node_id
    told = say("drain", node_id, "--dry-run")
    assert told["node_id"] == node_id
    assert say("enable", node_id)["status"] == "READY"
    assert len(say("cache")["nodes"]) == 2
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "one"}\n')
    checked = say("data", "validate", str(path))
    assert checked["results"][0]["num_samples"] == 1
    assert "JOB_NOT_FOUND" in say("evaluate", "none", "--benchmark", "exact_match", code=3)
    made = say("keys", "create", "--tenant", "test-cli", "--permission", "view")
    key_id = made["info"]["key_id"]
    assert key_id in {key["key_id"] for key in say("keys", "list")["keys"]}
    assert say("keys", "revoke", key_id)["info"]["revoked_at"]


def test_a_reader_that_goes_away_is_no_failure_of_a_job(caller: Caller) -> None:
    command = f"{sys.executable} -m scaimind.cli jobs -o json; echo $? >&2"
    caller.grpc.submit_batch([jobs.body("/bin/true", scheduling=LATER) for _ in range(100)])
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "MIND_GRPC": caller.cluster.grpc, "MIND_API_KEY": caller.key},
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.stderr.split() == ["0"]
