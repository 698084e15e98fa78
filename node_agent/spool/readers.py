"""What lines mean: output becomes log lines, and events become what they report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from node_agent.core.cadence import Cadence
from node_agent.spool import events, metrics_lines
from node_agent.spool.channels import Found
from node_agent.spool.levels import Level, levels_of
from node_agent.spool.lines import CONTINUED, MAX_LINE_BYTES, escape, texts_of
from scaimind.agent.v1 import agent_service_pb2 as pb
from scaimind.v1 import job_pb2, stream_pb2

MAX_FAULTS_SHOWN = 20


@dataclass(slots=True)
class Reports:
    """What the readers of one rank's files know of each other.

    own_metrics: the rank reports metrics as events, so its output is not searched for them.
    counted: metrics found in the output so far; the step of a line that does not say one.
    progress: as last reported, 0 to 100.
    cadence: how often it reports that it has come further.
    """

    own_metrics: bool = False
    counted: int = 0
    progress: float = 0.0
    cadence: Cadence = field(default_factory=Cadence)

    def point(self, step: int, values: dict[str, float], *, attempt: int, now_ms: int) -> Point:
        """A metric point as of now."""
        return job_pb2.MetricPoint(
            step=step,
            values=values,
            timestamp=Timestamp(seconds=now_ms // 1000, nanos=now_ms % 1000 * 1_000_000),
            attempt=attempt,
            progress=self.progress,
        )


Point = job_pb2.MetricPoint


class OutputReader:
    """Reads stdout or stderr. `seeks_metrics`: whether lines may report metrics as well."""

    limit_bytes = MAX_LINE_BYTES

    def __init__(self, reports: Reports, *, seeks_metrics: bool) -> None:
        self._reports = reports
        self._seeks_metrics = seeks_metrics

    def fill(self, batch: pb.PushRequest, found: Found) -> None:
        """Every line is a log line."""
        text, lines = texts_of(found.data, found.cut, continues=found.continues)
        ends = found.ends
        batch.texts.extend(lines)
        batch.ends.extend(ends)
        batch.times_ms.extend([found.now_ms] * len(lines))
        batch.levels.extend(levels_of(text, lines))
        if self._seeks_metrics and not self._reports.own_metrics and "{'" in text:
            self._seek_metrics(batch, lines, ends=ends, now_ms=found.now_ms)

    def _seek_metrics(
        self, batch: pb.PushRequest, lines: list[str], *, ends: list[int], now_ms: int
    ) -> None:
        for line, end in zip(lines, ends, strict=True):
            report = metrics_lines.parse(line)
            if report is None:
                continue
            self._reports.counted += 1
            self._reports.cadence = self._reports.cadence.report(now_ms)
            step = self._reports.counted if report.step is None else report.step
            point = self._reports.point(step, report.values, attempt=batch.attempt, now_ms=now_ms)
            if report.epoch is not None:
                point.epoch = report.epoch
            batch.metrics.append(point)
            batch.metric_ends.append(end)


class EventsReader:
    """Reads the events file, from its beginning after each start of the agent.

    Nobody trusts it: what is wrong with a line becomes a warning in the job's log, and MAX_FAULTS_SHOWN
    of them are shown. `on_saved(event, end)` takes a checkpoint and may say what is wrong with it;
    `on_done` takes the news that the job's work is complete.
    """

    limit_bytes = events.MAX_EVENT_BYTES

    def __init__(
        self,
        reports: Reports,
        *,
        on_saved: Callable[[events.Saved, int], str | None],
        on_done: Callable[[], None],
    ) -> None:
        self._reports = reports
        self._on_saved = on_saved
        self._on_done = on_done
        self._faults = 0
        self._strangers: set[str] = set()

    def fill(self, batch: pb.PushRequest, found: Found) -> None:
        """Every event goes where it belongs; what is before the batch's begin goes only here."""
        last = len(found.cut.lines) - 1
        for i, (line, end) in enumerate(zip(found.cut.lines, found.ends, strict=True)):
            if (i == 0 and found.continues) or not line.strip():
                continue
            try:
                if i == last and found.cut.goes_on:
                    raise ValueError(f"it is over {self.limit_bytes} bytes")
                self._take(batch, events.parse(line), end=end, now_ms=found.now_ms)
            except ValueError as fault:
                self._complain(batch, str(fault), end=end, now_ms=found.now_ms)

    def _take(self, batch: pb.PushRequest, event: events.Event, *, end: int, now_ms: int) -> None:
        match event:
            case events.Metrics():
                self._take_metrics(batch, event, end=end, now_ms=now_ms)
            case events.Progress():
                self._reports.progress = event.fraction * 100
                if end > batch.begin:
                    self._reports.cadence = self._reports.cadence.report(now_ms)
                    self._take_progress(batch, event)
            case events.Message():
                add_line(batch, event.message, level=event.severity(), end=end, now_ms=now_ms)
            case events.Saved():
                fault = self._on_saved(event, end)
                if fault is not None:
                    raise ValueError(fault)
            case events.Done():
                self._on_done()
            case events.Unknown():
                self._meet(event.event)

    def _take_metrics(
        self, batch: pb.PushRequest, event: events.Metrics, *, end: int, now_ms: int
    ) -> None:
        values = event.numbers()
        epoch = None if event.epoch is None else events.as_number("epoch", event.epoch)
        self._reports.own_metrics = True
        if end <= batch.begin:
            return
        self._reports.cadence = self._reports.cadence.report(now_ms)
        point = self._reports.point(event.step, values, attempt=batch.attempt, now_ms=now_ms)
        if epoch is not None:
            point.epoch = epoch
        batch.metrics.append(point)
        batch.metric_ends.append(end)

    def _take_progress(self, batch: pb.PushRequest, event: events.Progress) -> None:
        batch.progress = self._reports.progress
        if event.eta_seconds is None:
            batch.ClearField("eta_seconds")
        else:
            batch.eta_seconds = event.eta_seconds

    def _meet(self, kind: str) -> None:
        if kind not in self._strangers and len(self._strangers) < MAX_FAULTS_SHOWN:
            self._strangers.add(kind)
            raise ValueError(f"events of the kind {kind[:64]!r} are not known and are ignored")

    def _complain(self, batch: pb.PushRequest, fault: str, *, end: int, now_ms: int) -> None:
        self._faults += 1
        if self._faults > MAX_FAULTS_SHOWN:
            return
        more = "; further faults are not shown" if self._faults == MAX_FAULTS_SHOWN else ""
        text = f"the event that ends at byte {end} is refused: {fault}{more}"
        add_line(batch, text, level=stream_pb2.WARNING, end=end, now_ms=now_ms)


def add_line(batch: pb.PushRequest, text: str, *, level: Level, end: int, now_ms: int) -> None:
    """Adds a log line to a batch; nothing where it ends at or before the batch's begin."""
    if end <= batch.begin:
        return
    safe = escape(text).replace("\n", "\\n").encode("utf-8", "replace")
    if len(safe) > MAX_LINE_BYTES:
        safe = safe[:MAX_LINE_BYTES] + CONTINUED.encode()
    batch.texts.append(safe.decode("utf-8", "ignore"))
    batch.ends.append(end)
    batch.times_ms.append(now_ms)
    batch.levels.append(level)
