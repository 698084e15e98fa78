"""What the events file says, and what is done about what it should not say."""

from __future__ import annotations

import json
import math

import pytest

from node_agent.spool.channels import Found
from node_agent.spool.events import MAX_EVENT_BYTES, MAX_VALUES, Saved
from node_agent.spool.lines import cut
from node_agent.spool.readers import MAX_FAULTS_SHOWN, EventsReader, Reports
from scaimind.agent.v1 import agent_service_pb2 as pb
from scaimind.v1.stream_pb2 import DEBUG, ERROR, INFO, WARNING


class Reading:
    """An events reader and what it told."""

    def __init__(self) -> None:
        self.saved: list[tuple[int, str]] = []
        self.done = 0
        self.refuse: str | None = None
        self.reports = Reports()
        self.reader = EventsReader(self.reports, on_saved=self._on_saved, on_done=self._on_done)

    def read(self, *lines: bytes | dict[str, object], acked: int = 0) -> pb.PushRequest:
        """Reads lines as a whole file of which `acked` bytes are acknowledged."""
        encoded = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
        data = b"".join(line + b"\n" for line in encoded)
        found = cut(data, final=True, limit=MAX_EVENT_BYTES)
        batch = pb.PushRequest(begin=acked, attempt=2)
        self.reader.fill(batch, Found(data, found, offset=0, continues=False, now_ms=1_500))
        return batch

    def _on_saved(self, event: Saved, end: int) -> str | None:
        self.saved.append((event.step, event.path))
        return self.refuse

    def _on_done(self) -> None:
        self.done += 1


def test_metrics_become_points_with_their_time_attempt_and_progress() -> None:
    batch = Reading().read(
        {"event": "progress", "fraction": 0.25, "eta_seconds": 60},
        {"event": "metrics", "step": 3, "values": {"loss": 1, "bad": "NaN"}, "epoch": 0.5},
    )
    (point,) = batch.metrics
    assert (point.step, point.epoch, point.attempt, point.progress) == (3, 0.5, 2, 25.0)
    assert point.values["loss"] == 1.0
    assert math.isnan(point.values["bad"])
    assert point.timestamp.ToMilliseconds() == 1_500
    assert (batch.progress, batch.eta_seconds) == (25.0, 60.0)
    assert list(batch.texts) == []


def test_a_loss_that_diverged_is_told_also_as_pythons_json_writes_it() -> None:
    values = {"loss": math.nan, "norm": math.inf, "low": -math.inf, "rate": 0.1}
    batch = Reading().read({"event": "metrics", "step": 3, "values": values, "epoch": math.nan})
    (point,) = batch.metrics
    assert math.isnan(point.values["loss"])
    assert math.isnan(point.epoch)
    assert (point.values["norm"], point.values["low"]) == (math.inf, -math.inf)
    assert point.values["rate"] == 0.1
    assert list(batch.texts) == []


def test_a_log_event_is_a_line_at_its_own_level_that_stays_one_line() -> None:
    batch = Reading().read(
        {"event": "log", "level": "ERROR", "message": "one\ntwo\x1b[0m"},
        {"event": "log", "message": "plain"},
        {"event": "log", "level": "debug", "message": ""},
    )
    assert list(batch.texts) == [r"one\ntwo\x1b[0m", "plain", ""]
    assert list(batch.levels) == [ERROR, INFO, DEBUG]


def test_checkpoints_and_done_are_told() -> None:
    reading = Reading()
    batch = reading.read(
        {"event": "checkpoint", "step": 5, "path": "step-5"}, {"event": "done"}, b"", b"  "
    )
    assert reading.saved == [(5, "step-5")]
    assert reading.done == 1
    assert not batch.texts


def test_what_was_acknowledged_before_is_learned_from_and_not_sent_again() -> None:
    reading = Reading()
    first = b'{"event":"metrics","step":1,"values":{"a":1}}'
    batch = reading.read(
        first,
        b'{"event":"checkpoint","step":1,"path":"p"}',
        b"rubbish",
        b'{"event":"done"}',
        {"event": "metrics", "step": 2, "values": {"a": 2}},
        acked=len(first) + 1 + 43 + 8 + 17,
    )
    assert reading.saved == [(1, "p")]
    assert reading.done == 1
    assert reading.reports.own_metrics
    assert [point.step for point in batch.metrics] == [2]
    assert not batch.texts


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"{", "not JSON"),
        (b"[]", "no object"),
        (b'{"step": 1}', "no object with a field `event`"),
        (b"\xff\xfe", "not JSON"),
        (b'{"event":"metrics","step":1,"values":{"loss":nan}}', "not JSON"),
        (b'{"event":"metrics","step":1,"values":{"loss":NaN},"x":"\\ud800"}', "not JSON"),
        (b'{"event":"metrics","step":NaN,"values":{}}', "$.step"),
        (b'{"event":"progress","fraction":NaN}', "$.fraction"),
        (b'{"event":"x","y":[NaN,1e999,' + b"[" * 30_000, "event"),
        (b"[" * 30_000, "event"),
        (b'{"event":"metrics","step":-1,"values":{}}', "$.step"),
        (b'{"event":"metrics","step":1.5,"values":{}}', "$.step"),
        (b'{"event":"metrics","step":1,"values":{"a":null}}', "$.values"),
        (b'{"event":"metrics","step":1,"values":{"loss":"high"}}', "'loss' is not a number"),
        (b'{"event":"metrics","step":1,"values":{"a":1e999}}', "out of range"),
        (b'{"event":"metrics","values":{"a":1}}', "step"),
        (b'{"event":"progress","fraction":40}', "$.fraction"),
        (b'{"event":"progress","fraction":0.5,"eta_seconds":-1}', "$.eta_seconds"),
        (b'{"event":"checkpoint","step":1}', "path"),
        (b'{"event":"log","level":"LOUD","message":"x"}', "LOUD"),
        (b'{"event":"sing","song":"x"}', "'sing' are not known"),
        (b'{"event":"log","message":"' + b"x" * MAX_EVENT_BYTES + b'"}', "over 65536 bytes"),
    ],
)
def test_what_is_wrong_with_an_event_is_a_warning_that_names_it(line: bytes, named: str) -> None:
    batch = Reading().read(line)
    assert len(batch.texts) == 1
    assert named in batch.texts[0]
    assert "\n" not in batch.texts[0]
    assert list(batch.levels) == [WARNING]
    assert not batch.metrics


def test_a_point_with_too_many_values_is_refused() -> None:
    batch = Reading().read(
        {"event": "metrics", "step": 1, "values": {f"v{i}": i for i in range(MAX_VALUES + 1)}}
    )
    assert "more than 1000 values" in batch.texts[0]
    assert not batch.metrics


def test_a_checkpoint_that_is_refused_is_a_warning() -> None:
    reading = Reading()
    reading.refuse = "the checkpoint is elsewhere"
    batch = reading.read({"event": "checkpoint", "step": 5, "path": "/etc"})
    assert "the checkpoint is elsewhere" in batch.texts[0]


def test_unknown_kinds_are_named_once_and_faults_are_bounded() -> None:
    reading = Reading()
    batch = reading.read(*[b'{"event":"sing"}'] * 50)
    assert len(batch.texts) == 1
    batch = reading.read(*[b"rubbish"] * 500)
    assert len(batch.texts) == MAX_FAULTS_SHOWN - 1
    assert "further faults are not shown" in batch.texts[-1]
