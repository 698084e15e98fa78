"""The command line against a real gRPC server: what it asks, prints and exits with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
import yaml
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from scaimind.cli.main import build, main
from scaimind.v1 import job_pb2, key_service_pb2, node_pb2, options_pb2
from scaimind.v1 import mind_coordinator_pb2 as pb
from scaimind.v1.stream_pb2 import LogEvent, LogLine, StreamEnd, StreamGap, StreamJobLogsResponse
from tests.integration.client.scripted import Refusal, Scripted, refusal
from tests.integration.client.test_calls import JOB

Run = Callable[..., int]
Status = job_pb2.Job.Status
Code = grpc.StatusCode


@pytest.fixture
def run(coordinator: Scripted, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MIND_GRPC", coordinator.address)
    monkeypatch.setenv("MIND_API_KEY", "sgk_env")
    return lambda *argv: main(argv)


def a_job(status: Status.ValueType = job_pb2.Job.TRAINING) -> job_pb2.Job:
    job = job_pb2.Job(
        job_id="job_1",
        name="evil\x1b[2J",
        status=status,
        progress=40,
        queue_name="default",
        labels={"team": "nlp"},
        resource_config=job_pb2.ResourceConfig(gpu_count=2, gpu_type="H100"),
        created_at=Timestamp(seconds=1_700_000_000),
    )
    job.latest_metrics.step = 7
    job.latest_metrics.values["loss"] = 1.25
    return job


def test_a_job_is_shown_to_people_without_harm_to_the_terminal(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator.answers["GetJob"] = lambda _: a_job()
    assert run("job", "job_1") == 0
    out = capsys.readouterr().out
    assert "evil\\x1b[2J" in out
    assert "TRAINING" in out
    assert "loss=1.25" in out
    assert coordinator.metadata["authorization"] == "Bearer sgk_env"


@pytest.mark.parametrize(
    "options", [["-o", "json", "job", "job_1"], ["job", "job_1", "-o", "json"]]
)
def test_json_has_the_shape_of_rest(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str], *, options: list[str]
) -> None:
    coordinator.answers["GetJob"] = lambda _: a_job()
    assert run(*options) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["status"] == "TRAINING"
    assert data["created_at"] == "2023-11-14T22:13:20Z"
    assert data["eta_seconds"] is None
    assert data["error"] is None
    assert data["checkpoints"] == []


def test_yaml_is_the_same_in_yaml(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator.answers["ListJobs"] = lambda _: pb.ListJobsResponse(jobs=[a_job()], total_count=1)
    assert run("jobs", "-o", "yaml", "--status", "training", "-l", "team=nlp") == 0
    data = yaml.safe_load(capsys.readouterr().out)
    assert data["jobs"][0]["labels"] == {"team": "nlp"}
    assert data["total_count"] == 1
    assert coordinator.requests("ListJobs")[0].page_size == 20


def test_lists_are_filtered_by_options(coordinator: Scripted, run: Run) -> None:
    for method in ("ListJobs", "ListEvaluations"):
        coordinator.answers[method] = lambda _: pb.ListJobsResponse()
    began = time.time()
    assert (
        run("jobs", "--queue", "night", "--parent", "job_1", "--name", "ti", "--since", "2h") == 0
    )
    (asked,) = coordinator.requests("ListJobs")
    assert (asked.queue_name, asked.parent_job_id, asked.name_prefix) == ("night", "job_1", "ti")
    assert 0 <= asked.created_after.seconds - (began - 7200) + 1 < 60
    assert run("evaluations", "--job", "job_1", "--since", "2026-03-01T09:30:00+01:00") == 0
    (asked,) = coordinator.requests("ListEvaluations")
    assert (asked.parent_job_id, asked.created_after.seconds) == ("job_1", 1772353800)


def test_a_page_that_comes_in_pieces_is_shown_whole(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def pieces(request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        number = int(request.page_token or 0)
        return pb.ListJobsResponse(
            jobs=[a_job()] * (number % 2), next_page_token=str(number + 1), total_is_least=True
        )

    coordinator.answers["ListJobs"] = pieces
    assert run("jobs", "--page-size", "3", "--label", "a=b") == 0
    out = capsys.readouterr().out
    assert out.count("job_1") == 3
    assert "or more; go on with --page-token 6" in out
    assert [one.page_size for one in coordinator.requests("ListJobs")] == [3, 3, 2, 2, 1, 1]


@pytest.mark.parametrize("when", ["soon", "0h", "2026-13-01", "9999999d"])
def test_a_time_that_is_none_is_wrong_usage(coordinator: Scripted, run: Run, when: str) -> None:
    assert run("jobs", "--since", when) == 2


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (Code.INVALID_ARGUMENT, 2),
        (Code.NOT_FOUND, 3),
        (Code.PERMISSION_DENIED, 4),
        (Code.UNAUTHENTICATED, 4),
        (Code.FAILED_PRECONDITION, 5),
        (Code.ALREADY_EXISTS, 5),
        (Code.ABORTED, 5),
        (Code.DEADLINE_EXCEEDED, 6),
        (Code.RESOURCE_EXHAUSTED, 6),
        (Code.UNIMPLEMENTED, 6),
        (Code.INTERNAL, 6),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    coordinator: Scripted,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    *,
    code: grpc.StatusCode,
    exit_code: int,
) -> None:
    def answer(_: object) -> job_pb2.Job:
        raise refusal(code, "THE_REASON", "what happened")

    coordinator.answers["CancelJob"] = answer
    assert run("cancel", "job_1") == exit_code
    err = capsys.readouterr().err
    assert err.startswith("error: what happened (THE_REASON)\nhint: ")
    assert "Traceback" not in err


def test_an_error_names_the_fields_at_fault(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fault = error_details_pb2.BadRequest.FieldViolation(
        field="resource_config.gpu_count", description="must be at least 1"
    )

    def answer(_: object) -> pb.SubmitJobResponse:
        reason = error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT")
        fields = error_details_pb2.BadRequest(field_violations=[fault])
        raise Refusal(Code.INVALID_ARGUMENT, "bad job", reason, fields)

    coordinator.answers["SubmitJob"] = answer
    file = tmp_path / "job.json"
    file.write_text(json.dumps(JOB))
    assert run("submit", str(file)) == 2
    assert "job.json:1: resource_config.gpu_count: must be at least 1\n" in capsys.readouterr().err


def test_a_coordinator_that_is_away_is_exit_code_6(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaimind.cli.session.RETRY_S", 0.1)
    assert run("jobs", "--server", "127.0.0.1:1") == 6
    assert "no coordinator answers at 127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["nonsense"], ["job"], ["jobs", "--page-size", "0"], ["submit", "/no/such/file"]]
)
def test_wrong_usage_is_exit_code_2(
    run: Run, capsys: pytest.CaptureFixture[str], *, argv: list[str]
) -> None:
    assert run(*argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.out == ""


def test_a_job_file_is_submitted_with_its_paths_made_absolute(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    coordinator.answers["SubmitJob"] = lambda _: pb.SubmitJobResponse(
        job_id="job_1", status=job_pb2.Job.QUEUED
    )
    (tmp_path / "train.py").touch()
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    argv = ["submit", str(tmp_path / "job.yaml"), "--set", "resource_config.gpu_count=4"]
    assert run(*argv, "--dry-run") == 0
    [request] = coordinator.requests("SubmitJob")
    framework = request.training_config.framework
    assert framework.custom_script_path == str(tmp_path / "train.py")
    assert request.data_config.sources[0].path == "data.jsonl"
    assert request.resource_config.gpu_count == 4
    assert request.validate_only
    assert capsys.readouterr().out.startswith("job_1  QUEUED")


def logs_answer(*events: LogEvent) -> Callable[[object], Iterator[StreamJobLogsResponse]]:
    def answer(_: object) -> Iterator[StreamJobLogsResponse]:
        yield StreamJobLogsResponse(events=events)

    return answer


@pytest.mark.parametrize(("status", "exit_code"), [(Status.COMPLETED, 0), (Status.FAILED, 1)])
def test_a_followed_log_ends_with_the_job(
    coordinator: Scripted,
    run: Run,
    capsys: pytest.CaptureFixture[str],
    *,
    status: Status.ValueType,
    exit_code: int,
) -> None:
    coordinator.answers["StreamJobLogs"] = logs_answer(
        LogEvent(id="1", log=LogLine(message="hello")),
        LogEvent(id="2", gap=StreamGap(reason="RETENTION")),
        LogEvent(id="3", log=LogLine(message="there", rank=1)),
        LogEvent(id="4", end=StreamEnd(status=status)),
    )
    assert run("logs", "job_1", "-f") == exit_code
    captured = capsys.readouterr()
    assert captured.out == "hello\n[rank 1] there\n"
    assert "RETENTION" in captured.err


def test_a_followed_log_that_is_cut_is_exit_code_6(
    coordinator: Scripted, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator.answers["StreamJobLogs"] = logs_answer(LogEvent(id="1", log=LogLine(message="x")))
    monkeypatch.setattr("scaimind.client.patience.Patience.delay_s", _give_up)
    assert run("logs", "job_1", "-f") == 6


def _give_up(_: object, error: Exception) -> float:
    raise error


def test_a_log_in_json_is_an_event_a_line(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator.answers["StreamJobLogs"] = logs_answer(LogEvent(id="1", log=LogLine(message="x")))
    assert run("logs", "job_1", "-o", "json") == 0
    event = json.loads(capsys.readouterr().out)
    assert (event["id"], event["event"], event["message"]) == ("1", "log", "x")


def test_a_log_of_the_past_is_no_verdict_on_the_job(coordinator: Scripted, run: Run) -> None:
    coordinator.answers["StreamJobLogs"] = logs_answer(
        LogEvent(id="1", log=LogLine(message="x")),
        LogEvent(id="2", end=StreamEnd(status=Status.FAILED)),
    )
    assert run("logs", "job_1") == 0


def test_a_submitted_job_can_be_followed_to_its_end(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    coordinator.answers["SubmitJob"] = lambda _: pb.SubmitJobResponse(job_id="job_1")
    coordinator.answers["StreamJobLogs"] = logs_answer(
        LogEvent(id="1", log=LogLine(message="hello")),
        LogEvent(id="2", end=StreamEnd(status=Status.FAILED)),
    )
    file = tmp_path / "job.json"
    file.write_text(json.dumps(JOB))
    assert run("submit", str(file), "-f") == 1
    assert coordinator.requests("StreamJobLogs")[0].tail == -1
    assert "hello\n" in capsys.readouterr().out


def test_a_wait_shows_lines_and_ends_as_the_job(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(_: object) -> job_pb2.Job:
        first = len(coordinator.asked) == 1
        job = a_job(job_pb2.Job.TRAINING if first else job_pb2.Job.FAILED)
        job.version = len(coordinator.asked)
        job.error.message = "exit code 3"
        return job

    coordinator.answers["GetJob"] = answer
    assert run("wait", "job_1") == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "TRAINING  40 %  step 7  loss 1.25"
    assert out[-1] == "job_1 FAILED: exit code 3"


def test_a_node_is_drained_and_enabled(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator.answers["DrainNode"] = lambda _: pb.DrainNodeResponse(
        node_id="n1", status=node_pb2.Node.DRAINING, running_job_ids=["job_1"]
    )
    coordinator.answers["EnableNode"] = lambda _: node_pb2.Node(
        node_id="n1", status=node_pb2.Node.READY
    )
    assert run("drain", "n1", "--reason", "new driver", "--deadline", "60") == 0
    assert run("drain", "n1", "--starts-at", "2026-12-01T02:00:00+0000") == 0
    assert run("enable", "n1") == 0
    assert coordinator.requests("DrainNode")[0].deadline_seconds == 60
    assert coordinator.requests("DrainNode")[1].starts_at.seconds == 1796090400
    out = capsys.readouterr().out
    assert "n1  DRAINING" in out
    assert "still running there: job_1" in out
    assert "n1  READY" in out


def test_what_a_drain_comes_to_is_told_before_it_and_while_it_goes_on(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = pb.DrainPlan(
        node_id="n1",
        strategy=pb.DrainNodeRequest.CHECKPOINT_AND_MOVE,
        jobs_count=2,
        empty_p50_seconds=90,
        lost_device_seconds=40,
    )
    plan.jobs.add(
        job_id="job_1",
        outcome=pb.DrainedJob.MOVES,
        devices=8,
        leaves_p50_seconds=35,
        restart_seconds=35,
        restart_node_ids=["n7"],
    )
    coordinator.answers["DrainNode"] = lambda _: pb.DrainNodeResponse(
        node_id="n1", status=node_pb2.Node.DRAINING, plan=plan
    )
    coordinator.answers["GetDrain"] = lambda _: plan
    assert run("drain", "n1", "--strategy", "checkpoint_and_move", "--dry-run") == 0
    [request] = coordinator.requests("DrainNode")
    assert (request.strategy, request.validate_only) == (plan.strategy, True)
    told = capsys.readouterr().out
    assert run("drains", "n1") == 0
    for out in (told, capsys.readouterr().out):
        assert "job_1  MOVES" in out
        assert "n7" in out
        assert "40 device-seconds" in out


def test_a_rolling_drain_is_begun_shown_and_cancelled(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    one = pb.RollingDrain(
        drain_id="drain_1", status=pb.RollingDrain.RUNNING, label=["rack=a"], out_node_ids=["n1"]
    )
    one.nodes.add(node_id="n1", jobs_count=3)
    for name in ("StartRollingDrain", "GetRollingDrain", "CancelRollingDrain"):
        coordinator.answers[name] = lambda _: one
    coordinator.answers["ListRollingDrains"] = lambda _: pb.ListRollingDrainsResponse(drains=[one])
    assert run("rolling-drain", "--label", "rack=a", "--max-unavailable", "2") == 0
    [request] = coordinator.requests("StartRollingDrain")
    assert (list(request.label), request.max_unavailable) == (["rack=a"], 2)
    assert request.strategy == pb.DrainNodeRequest.CHECKPOINT_AND_MOVE
    assert run("drains") == 0
    assert run("drains", "drain_1") == 0
    assert run("cancel-drain", "drain_1") == 0
    assert capsys.readouterr().out.count("drain_1  RUNNING") == 4
    assert run("rolling-drain", "--label", "rack") == 2


def test_changes_are_read_from_a_file_and_tried_out(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answer = pb.SimulateResponse(sooner_count=1)
    answer.before.started_count, answer.after.started_count = 4, 5
    answer.starts.add(job_id="job_1", before_seconds=90)
    answer.refused.add(index=1, error=pb.BatchError(code="NODE_NOT_FOUND", message="no node n9"))
    coordinator.answers["Simulate"] = lambda _: answer
    file = tmp_path / "changes.yaml"
    file.write_text("changes:\n- drain: {node_id: n1, strategy: FORCE}\n- enable: {node_id: n9}\n")
    assert run("simulate", "-f", str(file)) == 0
    [request] = coordinator.requests("Simulate")
    assert request.changes[0].drain.strategy == pb.DrainNodeRequest.FORCE
    assert request.changes[1].enable.node_id == "n9"
    out = capsys.readouterr().out
    assert "1 jobs start sooner" in out
    assert "change 2  NODE_NOT_FOUND" in out


def test_keys_are_made_listed_and_revoked(
    coordinator: Scripted, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    info = key_service_pb2.ApiKey(key_id="key_1", permissions=[options_pb2.VIEW])
    answers = coordinator.answers
    answers["CreateKey"] = lambda _: key_service_pb2.CreateKeyResponse(key="sgk_new", info=info)
    answers["ListKeys"] = lambda _: key_service_pb2.ListKeysResponse(keys=[info])
    answers["RevokeKey"] = lambda _: key_service_pb2.RevokeKeyResponse(info=info)
    create = ["keys", "create", "--tenant", "acme", "--permission", "scaimind:view"]
    assert run(*create, "--permission", "MANAGE", "--expires-in", "30d") == 0
    assert run("keys", "list") == 0
    assert run("keys", "revoke", "key_1") == 0
    [request] = coordinator.requests("CreateKey")
    assert list(request.permissions) == [options_pb2.VIEW, options_pb2.MANAGE]
    assert request.expires_at.seconds > 1_700_000_000
    assert "sgk_new" in capsys.readouterr().out


EVERY_VERB = [
    ["submit", "-"],
    ["jobs"],
    ["job", "x"],
    ["logs", "x"],
    ["metrics", "x"],
    ["metrics", "x", "-f"],
    ["pause", "x"],
    ["resume", "x"],
    ["cancel", "x"],
    ["retry", "x"],
    ["update", "x", "--priority", "1"],
    ["bulk", "cancel", "--label", "a=b"],
    ["wait", "x"],
    ["explain", "x"],
    ["queue"],
    ["queues"],
    ["set-queue", "x"],
    ["remove-queue", "x"],
    ["usage", "--until", "1d"],
    ["cluster"],
    ["nodes"],
    ["nodes", "x"],
    ["drain", "x"],
    ["drains"],
    ["drains", "x"],
    ["drains", "drain_x"],
    ["rolling-drain"],
    ["simulate", "-f", "changes"],
    ["cancel-drain", "x"],
    ["enable", "x"],
    ["health", "x"],
    ["health", "x", "PROBATION"],
    ["remove", "x"],
    ["evaluate", "x", "--benchmark", "b"],
    ["evaluations"],
    ["evaluations", "x"],
    ["data", "validate", "x"],
    ["cache"],
    ["keys", "create", "--tenant", "t", "--permission", "view"],
    ["keys", "list"],
    ["keys", "revoke", "x"],
]


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb with the words that lead to it."""
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from leaves(inner, (*words, name))
    if not getattr(command, "commands", None):
        yield words, command


VERBS = dict(leaves(typer.main.get_command(build())))


def test_every_verb_is_tried_here() -> None:
    tried = {tuple(argv[:2] if argv[0] in ("keys", "data") else argv[:1]) for argv in EVERY_VERB}
    assert tried == set(VERBS) - {("up",)}


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_has_help_with_an_example_and_takes_every_form_of_output(
    capsys: pytest.CaptureFixture[str], *, words: tuple[str, ...]
) -> None:
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example: scaimind {' '.join(words)}" in shown
    assert words == ("up",) or "--output" in shown


@pytest.mark.parametrize("argv", EVERY_VERB, ids=" ".join)
def test_a_verb_whose_call_is_not_there_yet_says_so(
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    argv: list[str],
) -> None:
    texts = {"changes": "{}"}
    monkeypatch.setattr("scaimind.cli.jobfile._text", lambda file: texts.get(file, json.dumps(JOB)))
    assert run(*argv) == 6
    assert "(UNIMPLEMENTED)" in capsys.readouterr().err


def test_what_is_installed_is_told_to_whoever_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["scaimind", metadata.version("mindcoordinator")]
