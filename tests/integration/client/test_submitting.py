"""Job files on the command line: one, several, and what is wrong with them, line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scaimind.cli.main import main
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as pb
from tests.integration.client.scripted import Refusal, Scripted
from tests.integration.client.test_command_line import Code, Run, a_job, run

__all__ = ["run"]

JOB = """\
name: {name}
training_config:
  training_type: SFT
  base_model: {{model_id: none}}
  framework: {{type: CUSTOM, custom_script_path: /train.py}}
data_config:
  sources: [{{path: /dev/null}}]
resource_config:
  gpu_count: 1
"""
A, B, C = (JOB.format(name=name) for name in "abc")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(*errors: str) -> pb.BatchSubmitJobsResponse:
    """One result for each: accepted for "", else refused for this reason."""
    answer = pb.BatchSubmitJobsResponse()
    for number, reason in enumerate(errors):
        one = answer.results.add()
        if reason:
            one.error.code, one.error.message = reason, "it is refused"
            one.error.details.add(field="resource_config.gpu_count", message="too many")
        else:
            one.job.job_id, one.job.status = f"job_{number}", job_pb2.Job.QUEUED
    return answer


def test_several_jobs_go_in_one_call(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "two.yaml").write_text(f"{A}---\n{B}")
    (folder / "one.yaml").write_text(C)
    coordinator.answers["BatchSubmitJobs"] = lambda _: results("", "", "")
    assert run("submit", "two.yaml", "one.yaml", "--set", "labels.team=nlp", "--atomic") == 0
    [asked] = coordinator.requests("BatchSubmitJobs")
    assert [job.name for job in asked.jobs] == ["a", "b", "c"]
    assert {job.labels["team"] for job in asked.jobs} == {"nlp"}
    assert asked.atomic
    assert asked.request_id
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["FILE", "JOB", "STATUS", "MESSAGE"]
    assert [line.split()[:2] for line in lines[1:]] == [
        ["two.yaml:1", "job_0"],
        ["two.yaml:11", "job_1"],
        ["one.yaml:1", "job_2"],
    ]


@pytest.mark.parametrize(
    ("errors", "code"), [(("", "NEVER_FITS"), 2), (("QUEUE_FULL", ""), 6), (("", ""), 0)]
)
def test_a_batch_of_which_some_are_refused_says_which_and_why(
    coordinator: Scripted,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    *,
    errors: tuple[str, ...],
    code: int,
) -> None:
    (folder / "two.yaml").write_text(f"{A}---\n{B}")
    coordinator.answers["BatchSubmitJobs"] = lambda _: results(*errors)
    assert run("submit", "two.yaml") == code
    out = capsys.readouterr().out
    assert ("it is refused" in out) is bool(code)
    for number, reason in enumerate(errors):
        if reason:
            assert f"two.yaml:{9 + 10 * number}: resource_config.gpu_count: too many" in out


def test_the_jobs_of_a_batch_are_waited_for(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    def job(request: pb.GetJobRequest) -> job_pb2.Job:
        failed = request.job_id == "job_1"
        found = a_job(job_pb2.Job.FAILED if failed else job_pb2.Job.COMPLETED)
        found.job_id = request.job_id
        return found

    (folder / "two.yaml").write_text(f"{A}---\n{B}")
    coordinator.answers["BatchSubmitJobs"] = lambda _: results("", "")
    coordinator.answers["GetJob"] = job
    assert run("submit", "two.yaml", "--wait", "-o", "json") == 1
    assert len(json.loads(capsys.readouterr().out)["results"]) == 2
    assert [one.job_id for one in coordinator.requests("GetJob")] == ["job_0", "job_1"]
    assert run("submit", "two.yaml", "--follow") == 2
    assert run("submit", "two.yaml", "--dry-run", "--wait") == 0
    assert all(each.validate_only for each in coordinator.requests("BatchSubmitJobs")[-1].jobs)


def test_every_fault_of_every_file_is_told_with_its_line(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    wrong = A.replace("gpu_count: 1", "gpu_cuont: 1\n  cpu_count: many").replace("SFT", "SFTT")
    (folder / "good.yaml").write_text(B)
    (folder / "bad.yaml").write_text(wrong)
    argv = ["submit", "good.yaml", "bad.yaml", "--set", "labels=3"]
    assert run(*argv) == 2
    assert capsys.readouterr().err.splitlines()[1:8] == [
        "  --set: labels: must be an object",
        "  bad.yaml:3: training_config.training_type: 'SFTT' is none of SFT, LORA, QLORA, DPO, RLHF,"
        " CONTINUED_PRETRAIN, FULL_FINETUNE; did you mean SFT?",
        "  bad.yaml:9: resource_config.gpu_cuont: unknown field; did you mean gpu_count?",
        "  bad.yaml:10: resource_config.cpu_count: must be an integer",
        "  --set: labels: must be an object",
        "hint: put this right and send it again; nothing was accepted",
    ]
    assert coordinator.asked == []


def test_what_the_coordinator_finds_at_fault_is_told_with_its_line(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    from google.rpc import error_details_pb2

    def refuse(_: object) -> pb.BatchSubmitJobsResponse:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field="jobs[1].name", description="is too long")
        info = error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT")
        raise Refusal(Code.INVALID_ARGUMENT, "no", info, bad)

    (folder / "two.yaml").write_text(f"{A}---\n{B}")
    coordinator.answers["BatchSubmitJobs"] = refuse
    assert run("submit", "two.yaml") == 2
    assert "  two.yaml:11: name: is too long\n" in capsys.readouterr().err


def test_more_than_a_thousand_jobs_are_refused_here(
    run: Run, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "many.yaml").write_text("---\n".join(["name: x\n"] * 1001))
    assert run("submit", "many.yaml") == 2
    assert "1001 jobs are too many" in capsys.readouterr().err


def test_a_pause_says_how_long_it_waits_and_what_then(coordinator: Scripted, run: Run) -> None:
    coordinator.answers["PauseJob"] = lambda _: a_job()
    assert run("pause", "job_1") == 0
    assert run("pause", "job_1", "--no-checkpoint") == 0
    assert run("pause", "job_1", "--timeout", "60", "--on-timeout", "use_latest") == 0
    assert run("pause", "job_1", "--on-timeout", "never") == 2
    assert run("pause", "job_1", "--no-checkpoint", "--timeout", "60") == 2
    plain, without, timed = coordinator.requests("PauseJob")
    ways = pb.PauseJobRequest
    assert (plain.save_checkpoint, plain.on_timeout) == (True, ways.KEEP_RUNNING)
    assert not without.save_checkpoint
    assert (timed.checkpoint_timeout_seconds, timed.on_timeout) == (60, ways.USE_LATEST)


@pytest.mark.parametrize(
    ("words", "found"), [("scaimind job job_", ["job_1"]), ("scaimind drain n", ["n1"])]
)
def test_a_shell_completes_ids(
    coordinator: Scripted,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    words: str,
    found: list[str],
) -> None:
    coordinator.answers["ListJobs"] = lambda _: pb.ListJobsResponse(
        jobs=[a_job(), job_pb2.Job(job_id="other")]
    )
    nodes = pb.ListNodesResponse()
    nodes.nodes.add(node_id="n1")
    coordinator.answers["ListNodes"] = lambda _: nodes
    monkeypatch.setenv("_SCAIMIND_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        run()
    assert capsys.readouterr().out.split() == found
    monkeypatch.setenv("MIND_GRPC", "127.0.0.1:1")
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, shell: str
) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: shell)
    with pytest.raises(SystemExit) as ended:
        run("--show-completion")
    assert not ended.value.code
    assert "_SCAIMIND_COMPLETE" in capsys.readouterr().out
