"""Section 3: the life of a job, seen over REST."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.contract.conftest import Caller, MakeCaller
from tests.e2e.contract.test_rest import LATER, data
from tests.support import jobs
from tests.support.waiting import until

# Says what it does, saves where it is asked to, and ends as its folder is told.
PROGRAM = """
    import json, os, signal, sys, time
    from pathlib import Path

    told = Path(sys.argv[1])

    def event(**fields):
        with open(os.environ["MIND_EVENTS"], "a") as events:
            events.write(json.dumps(fields) + "\\n")

    def save(*_):
        if (told / "deaf").exists():
            return
        folder = Path(os.environ["MIND_CHECKPOINT_DIR"]) / "one"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state").write_text("x")
        event(event="checkpoint", step=1, path=str(folder))

    def stop(*_):
        if (told / "done").exists():
            event(event="done")
        sys.exit(0)

    signal.signal(signal.SIGUSR1, save)
    signal.signal(signal.SIGTERM, stop)
    print("attempt", os.environ["MIND_ATTEMPT"], "resumes", "MIND_RESUME_FROM" in os.environ, flush=True)
    while not (told / "end").exists():
        time.sleep(0.01)
    code = int((told / "end").read_text())
    mine = told / f"end.{os.getpid()}"
    mine.write_text("0")
    mine.replace(told / "end")  # the next attempt ends well
    sys.exit(code)
    """


class Told:
    """A job that runs PROGRAM, and how to tell it."""

    def __init__(self, caller: Caller, folder: Path, **more: Any) -> None:
        self.caller, self.folder = caller, folder
        program = jobs.script(folder, "told.py", PROGRAM)
        self.body = jobs.body(program, args=str(folder), **more)
        self.job_id: str = data(caller.rest.post("/jobs", json=self.body), 201)["job_id"]

    @property
    def record(self) -> Any:
        return data(self.caller.rest.get(f"/jobs/{self.job_id}"))

    def act(self, action: str, **body: Any) -> Any:
        answer = self.caller.rest.post(f"/jobs/{self.job_id}/{action}", json=body or None)
        return data(answer, 201 if action == "retry" else 200)

    def refused(self, action: str) -> str:
        answer = self.caller.rest.post(f"/jobs/{self.job_id}/{action}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "WRONG_STATUS")
        message: str = answer.json()["error"]["message"]
        return message

    def reaches(self, *statuses: str) -> Any:
        def look() -> Any:
            record = self.record
            return record if record["status"] in statuses else None

        return until(look, lambda: f"{statuses}, not {self.record}")

    def runs(self, attempt: int = 1) -> Any:
        """Its record once the attempt speaks."""
        words = f"attempt {attempt} "
        client = self.caller.grpc
        until(
            lambda: any(
                line.startswith(words) for line in jobs.lines(client, self.job_id, follow=False)
            ),
            f"attempt {attempt} speaks",
        )
        return self.reaches("TRAINING")

    def end(self, code: int = 0) -> None:
        new = self.folder / "end.new"
        new.write_text(str(code))
        new.replace(self.folder / "end")  # whole: the program looks for it all the time


@pytest.fixture
def told(caller: Caller, tmp_path: Path) -> Iterator[Any]:
    """Makes jobs, and cancels those that are left."""
    made: list[Told] = []

    def make(**more: Any) -> Told:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Told(caller, folder, **more))
        return made[-1]

    yield make
    for one in made:
        caller.rest.post(f"/jobs/{one.job_id}/cancel")


def test_a_job_waits_for_those_it_depends_on(told: Any) -> None:
    first = told()
    second = told(scheduling={"depends_on": [first.job_id]})
    assert second.record["status_reason"]["code"] == "WAITING_FOR_DEPENDENCIES"
    assert second.record["status"] == "PENDING"
    second.end()
    first.end()
    assert second.reaches("COMPLETED")["started_at"] >= first.record["completed_at"]


def test_a_job_whose_dependency_fails_fails_with_it(told: Any) -> None:
    first = told()
    second = told(scheduling={"depends_on": [first.job_id]})
    first.act("cancel")
    failed = second.reaches("FAILED")
    assert failed["status_reason"]["code"] == "DEPENDENCY_FAILED"
    assert failed["attempts_count"] == 0


def test_a_job_starts_after_its_time_and_not_before(told: Any) -> None:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=4)
    one = told(scheduling={"start_after": at.isoformat()})
    assert (one.record["status"], one.record["status_reason"]["code"]) == (
        "PENDING",
        "WAITING_FOR_START_TIME",
    )
    one.end()
    started = datetime.datetime.fromisoformat(one.reaches("COMPLETED")["started_at"])
    assert started >= at - datetime.timedelta(milliseconds=1)


def test_a_job_is_pending_until_its_quota_says_yes(
    caller: Caller, make_caller: MakeCaller, told: Any
) -> None:
    admin, place = make_caller(tenant="local"), "/cluster/queues/one-at-a-time"
    data(admin.rest.put(place, json={"tenant_limits": {"*": 1}}))
    queue = {"queue_name": "one-at-a-time"}
    first = told(scheduling=queue)
    first.reaches("TRAINING")
    second = told(scheduling=queue)
    assert (second.record["status"], second.record["status_reason"]["code"]) == (
        "PENDING",
        "WAITING_FOR_QUOTA",
    )
    found = data(caller.rest.get(f"/jobs/{second.job_id}/explain"))
    assert [one["code"] for one in found["blockers"]] == ["TENANT_LIMIT"]
    assert found["position"] == 1
    second.end()
    first.end()
    assert second.reaches("COMPLETED")["started_at"] >= first.record["completed_at"]
    assert admin.rest.delete(place).status_code == 200


def test_a_waiting_job_is_held_and_let_go_under_the_same_id(told: Any) -> None:
    one = told(scheduling=LATER)
    assert one.act("pause")["status"] == "PAUSED"
    assert "PAUSED" in one.refused("pause")
    assert one.act("resume")["status"] == "PENDING"
    assert one.act("cancel", reason="enough")["status"] == "CANCELLED"
    assert one.record["status_reason"] == {"code": "CANCELLED_BY_USER", "message": "enough"}
    assert one.record["attempts_count"] == 0


def test_a_queued_job_is_held_and_queued_again(caller: Caller, told: Any) -> None:
    devices = data(caller.rest.get("/cluster"))["total_devices"]
    busy = told(gpu_count=devices, resources={"node_count": 2})
    busy.reaches("TRAINING")
    one = told()
    assert one.record["status"] == "QUEUED"
    assert one.act("pause")["status"] == "PAUSED"
    assert one.act("resume")["status"] == "QUEUED"
    one.end()
    busy.end()
    one.reaches("COMPLETED")


def test_a_pause_proves_a_checkpoint_and_the_resume_goes_on_from_it(told: Any) -> None:
    one = told()
    one.runs()
    assert one.act("pause")["status"] == "CHECKPOINTING"
    paused = one.reaches("PAUSED")
    (checkpoint,) = paused["checkpoints"]
    assert set(checkpoint) >= {"checkpoint_id", "step", "uri", "size_bytes", "created_at", "digest"}
    assert checkpoint["digest"].startswith("sha256:")
    named = one.caller.rest.post(f"/jobs/{one.job_id}/resume", json={"checkpoint_id": "none"})
    assert named.status_code == 400
    assert one.act("resume", checkpoint_id=checkpoint["checkpoint_id"])["status"] == "QUEUED"
    one.runs(2)
    shown = jobs.lines(one.caller.grpc, one.job_id, follow=False)
    assert shown == ["attempt 1 resumes False", "attempt 2 resumes True"]
    one.end()
    assert one.reaches("COMPLETED")["attempts_count"] == 2


def test_a_pause_that_gets_no_checkpoint_in_time_ends_as_it_was_told(told: Any) -> None:
    stops, keeps, latest = told(), told(), told()
    for one in (stops, keeps, latest):
        one.runs()
    latest.act("pause")
    latest.reaches("PAUSED")
    latest.act("resume")
    latest.runs(2)
    for one in (stops, keeps, latest):
        (one.folder / "deaf").touch()
    for one, choice in ((stops, "STOP"), (keeps, "KEEP_RUNNING"), (latest, "USE_LATEST")):
        one.act("pause", checkpoint_timeout_seconds=1, on_timeout=choice)
    assert stops.reaches("PAUSED")["checkpoints"] == []
    assert len(latest.reaches("PAUSED")["checkpoints"]) == 1
    assert keeps.reaches("TRAINING")["status_reason"]["code"] == "PAUSE_GIVEN_UP"


def test_exit_0_after_a_stop_is_no_success_unless_the_job_said_that_it_is_done(told: Any) -> None:
    one, done = told(), told()
    (done.folder / "done").touch()
    for each, status in ((one, "PAUSED"), (done, "COMPLETED")):
        each.runs()
        each.act("pause", save_checkpoint=False)
        assert each.reaches("PAUSED", "COMPLETED")["status"] == status


def test_a_time_limit_fails_the_job_after_a_checkpoint(told: Any) -> None:
    one = told(resources={"max_runtime_seconds": 2})
    failed = one.reaches("FAILED")
    assert failed["status_reason"]["code"] == failed["error"]["category"] == "TIME_LIMIT"
    assert len(failed["checkpoints"]) == 1


def test_failures_use_up_the_retries_and_named_exit_codes_do_not(told: Any) -> None:
    counted = told(training={"max_retries": 1})
    free = told(scheduling={"retry_on_exit_codes": [42]})
    failing = told()
    for one, code in ((counted, 7), (free, 42), (failing, 7)):
        one.runs()
        one.end(code)
    for one in (counted, free):
        assert one.reaches("COMPLETED", "FAILED")["status"] == "COMPLETED"
        assert one.record["attempts_count"] == 2
    failed = failing.reaches("FAILED")
    assert failed["error"]["exit_code"] == 7
    assert failed["error"]["node_id"] in failed["attempt"]["node_ids"]
    assert "read its last lines" in failed["error"]["advice"]
    assert (failed["error"]["category"], failed["error"]["first_failing_rank"]) == ("USER_CODE", 0)


def test_a_forced_drain_queues_a_job_again_and_costs_it_no_retry(caller: Caller, told: Any) -> None:
    one = told()
    node_id = one.runs()["attempt"]["node_ids"][0]
    place = f"/cluster/nodes/{node_id}"
    try:
        body = {"force": True, "reason": "test"}
        assert one.job_id in data(caller.rest.post(f"{place}/drain", json=body))["running_job_ids"]
        moved = one.runs(2)
        assert moved["attempt"]["node_ids"] != [node_id]
        assert len(moved["checkpoints"]) == 1
    finally:
        data(caller.rest.post(f"{place}/enable"))
    one.end()
    one.reaches("COMPLETED")


def test_a_retry_is_a_child_and_the_original_stays_as_it_is(told: Any) -> None:
    one = told()
    one.runs()
    one.end(3)
    before = one.reaches("FAILED")
    tried = one.act("retry", modify_resources=True, new_resource_config={"gpu_count": 2})
    assert set(tried) >= {"job_id", "status", "message", "estimated_wait_seconds"}
    assert tried["parent_job_id"] == one.job_id
    child = data(one.caller.rest.get(f"/jobs/{tried['job_id']}"))
    assert child["resource_config"]["gpu_count"] == 2
    assert (child["parent_job_id"], child["lineage_id"]) == (one.job_id, one.job_id)
    assert one.record == before
    bad = one.caller.rest.post(f"/jobs/{one.job_id}/retry", json={"modify_resources": True})
    assert bad.json()["error"]["details"][0]["field"] == "new_resource_config", bad.text
    jobs.final(one.caller.grpc, tried["job_id"])


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "CANCELLED"])
def test_what_is_final_never_changes_again_and_the_refusal_names_its_status(
    told: Any, end: str
) -> None:
    one = told()
    if end == "CANCELLED":
        one.act("cancel")
    else:
        one.end(0 if end == "COMPLETED" else 1)
    before = one.reaches(end)
    actions = {"cancel", "pause", "resume", "retry"} - ({"retry"} if end == "FAILED" else set())
    for action in sorted(actions):
        assert end in one.refused(action), json.dumps(before)
    used = {"usage", "version", "updated_at"}  # what is held while ranks stop is still counted
    after = one.record
    assert after.keys() == before.keys()
    assert all(after[key] == before[key] for key in before.keys() - used)


@pytest.mark.parametrize("status", ["PENDING", "PAUSED", "TRAINING", "CHECKPOINTING"])
def test_a_cancel_ends_a_job_in_whatever_state(told: Any, status: str) -> None:
    waits = status in ("PENDING", "PAUSED")
    one = told(scheduling=LATER if waits else {})
    if not waits:
        one.runs()
    if status in ("PAUSED", "CHECKPOINTING"):
        one.act("pause")
    one.act("cancel")
    assert one.reaches("CANCELLED")["completed_at"]
