"""Section 5: logs and metrics as server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.contract.conftest import Caller
from tests.e2e.contract.test_rest import data
from tests.support import jobs
from tests.support.sse import SseEvent, parse

TALKS = """
    import os, scaimind, sys

    run = scaimind.init()
    if os.environ["MIND_ATTEMPT"] == "1":
        print("first words", flush=True)
        sys.exit(3)
    for line in (
        "DEBUG fine", "plain", "WARNING careful", '{"level": "error", "msg": "bad"}', "CRITICAL end",
    ):
        print(line, flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    for step in range(3):
        run.log({"loss": 3.0 - step}, step=step, epoch=0.5)
    run.done()
    """
LEVELS = ["INFO", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "INFO"]
LOG = {"level", "message", "timestamp", "rank", "node_id", "attempt", "stream", "cursor"}


@pytest.fixture(scope="module")
def talked(caller: Caller, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of two attempts that has ended."""
    program = jobs.script(tmp_path_factory.mktemp("talks"), "talks.py", TALKS)
    body = jobs.body(program, training={"max_retries": 1})
    job_id: str = data(caller.rest.post("/jobs", json=body), 201)["job_id"]
    jobs.final(caller.grpc, job_id)
    return job_id


def read(caller: Caller, path: str, **params: Any) -> list[SseEvent]:
    """All events of a stream that ends."""
    answer = caller.rest.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return list(parse(iter(answer.text.splitlines())))


def test_a_stream_has_its_headers_and_tells_when_to_come_again(caller: Caller, talked: str) -> None:
    answer = caller.rest.get(f"/jobs/{talked}/logs")
    assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.startswith("retry: 2000\n\n")


def test_lines_of_all_attempts_come_once_in_order_and_then_the_end(
    caller: Caller, talked: str
) -> None:
    *lines, end = read(caller, f"/jobs/{talked}/logs", tail=-1, level="DEBUG")
    assert [set(line.data) for line in lines] == [LOG] * 7
    assert [line.data["attempt"] for line in lines] == [1] + [2] * 6
    assert [line.data["level"] for line in lines] == LEVELS
    assert [line.data["stream"] for line in lines] == ["stdout"] * 6 + ["stderr"]
    assert all(line.id == line.data["cursor"] for line in lines)
    assert (end.name, end.data) == ("end", {"status": "COMPLETED"})
    assert len({event.id for event in (*lines, end)}) == 8


@pytest.mark.parametrize(
    ("params", "levels"),
    [
        ({"tail": -1}, LEVELS[:1] + LEVELS[2:]),
        ({}, LEVELS[:1] + LEVELS[2:]),
        ({"level": "WARNING"}, LEVELS[3:6]),
        ({"tail": 2}, LEVELS[5:]),
        ({"tail": 0}, []),
        ({"rank": 0, "tail": 1}, LEVELS[6:]),
        ({"rank": 1}, []),
        ({"follow": False, "tail": 1}, LEVELS[6:]),
    ],
)
def test_a_stream_shows_the_lines_that_were_asked_for(
    caller: Caller, talked: str, params: dict[str, Any], levels: list[str]
) -> None:
    events = read(caller, f"/jobs/{talked}/logs", **params)
    assert [event.data["level"] for event in events if event.name == "log"] == levels
    assert events[-1].name == "end"


@pytest.mark.parametrize("query", ["level=ERROR", "level=info", "tail=-2", "follow=x", "rank=-1"])
def test_a_query_of_a_stream_that_does_not_fit_is_an_ordinary_error(
    caller: Caller, talked: str, query: str
) -> None:
    answer = caller.rest.get(f"/jobs/{talked}/logs?{query}")
    (fault,) = answer.json()["error"]["details"]
    assert (answer.status_code, fault["field"]) == (422, query.partition("=")[0])
    if query.startswith("level"):
        assert fault["message"].endswith("must be one of DEBUG, INFO, WARNING")


def test_every_id_is_a_place_to_go_on_from_and_after_the_end_it_is_204(
    caller: Caller, talked: str
) -> None:
    path = f"/jobs/{talked}/logs"
    events = read(caller, path, tail=-1)
    for number, event in enumerate(events[:-1]):
        rest = read(caller, path, after=event.id, tail=0)
        assert rest == events[number + 1 :]
    for last in (
        {"headers": {"last-event-id": events[-1].id}},
        {"params": {"after": events[-1].id}},
        # as an EventSource that was opened with `after` asks when it connects again by itself
        {"params": {"after": events[0].id}, "headers": {"last-event-id": events[-1].id}},
    ):
        answer = caller.rest.get(path, **last)  # type: ignore[arg-type]
        assert (answer.status_code, answer.content) == (204, b"")
    headers = {"last-event-id": events[-2].id}
    assert f"id: {events[-1].id}" in caller.rest.get(path, headers=headers).text
    wrong = caller.rest.get(path, headers={"last-event-id": "1.00000000"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "INVALID_ARGUMENT")


def test_metrics_come_as_events_and_as_a_list(caller: Caller, talked: str) -> None:
    path = f"/jobs/{talked}/metrics"
    *points, end = read(caller, f"{path}/stream", interval=1)
    assert end.name == "end"
    newest = points[-1]
    assert newest.name == "metrics"
    fields = {"step", "epoch", "values", "timestamp", "attempt", "progress"}
    assert set(newest.data) == fields
    assert (newest.data["step"], newest.data["values"], newest.data["attempt"]) == (
        2,
        {"loss": 1.0},
        2,
    )
    told = data(caller.rest.get(path))
    assert [point["step"] for point in told["points"]] == [0, 1, 2]
    few = data(caller.rest.get(path, params={"max_points": 2}))
    assert [point["step"] for point in few["points"]] == [0, 2]
    for query in ("interval=0", "interval=61"):
        assert caller.rest.get(f"{path}/stream?{query}").status_code == 422
    assert caller.rest.get(f"{path}?max_points=-1").status_code == 422
    after = caller.rest.get(f"{path}/stream", params={"after": end.id})
    assert after.status_code == 204


@pytest.fixture
def anyone(caller: Caller) -> Iterator[httpx.Client]:
    """One without a credential."""
    with httpx.Client(base_url=caller.rest.base_url, timeout=30, trust_env=False) as client:
        yield client


def test_a_ticket_opens_one_stream_once(caller: Caller, talked: str, anyone: httpx.Client) -> None:
    path = f"/jobs/{talked}/logs"
    given = data(caller.rest.post("/stream-tickets", json={"path": path}), 201)
    assert set(given) == {"ticket", "expires_at"}
    ticket = {"ticket": given["ticket"]}
    assert anyone.get(f"/jobs/{talked}/metrics/stream", params=ticket).status_code == 401
    given = data(caller.rest.post("/stream-tickets", json={"path": path}), 201)
    ticket = {"ticket": given["ticket"]}
    assert "event: end" in anyone.get(path, params=ticket).text
    used = anyone.get(path, params=ticket)
    assert (used.status_code, used.json()["error"]["code"]) == (401, "AUTH_TOKEN_INVALID")
    assert anyone.post("/stream-tickets", json={"path": path}).status_code == 401


def test_lines_come_while_the_job_runs(caller: Caller, tmp_path: Path) -> None:
    program = jobs.script(
        tmp_path,
        "asks.py",
        f"""
        import time
        from pathlib import Path
        print("one", flush=True)
        while not Path("{tmp_path}/heard").exists():
            time.sleep(0.01)
        print("two", flush=True)
        """,
    )
    job_id = data(caller.rest.post("/jobs", json=jobs.body(program)), 201)["job_id"]
    heard = []
    with caller.rest.stream("GET", f"/jobs/{job_id}/logs") as answer:
        for event in parse(answer.iter_lines()):
            heard.append(event.data.get("message") or event.name)
            (tmp_path / "heard").touch()
    assert heard == ["one", "two", "end"]
