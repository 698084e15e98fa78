"""The streams that users follow: log lines and metrics, resumed exactly after a cursor.

A cursor is a position in the job's stream with a check on the job, so that a cursor of another job is
refused instead of taken for a place in this one. The end has a cursor of its own: asking for what comes
after it is answered OUT_OF_RANGE with STREAM_ENDED.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Kind
from coordinator.rpc import convert
from coordinator.rpc.border import Call
from coordinator.rpc.jobs import JobReader
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View
from coordinator.streams.protocol import Line, Placed, Streams
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import stream_pb2

BATCH_LINES = 500
MESSAGE_CHARACTERS = 128 * 1024  # of lines in one message: what a stuck reader costs on its way
DEFAULT_TAIL = 100
DEFAULT_INTERVAL_S = 5
LOOK_AGAIN_S = 5.0
WHOLE_WITHIN_S = 3.0  # after its end a job's last lines are a moment on their way
RETRY_AFTER_S = 1.0
CHANNELS = {1: "stdout", 2: "stderr", 3: "event"}
END = "end"
POSITION_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Cursors:
    """Makes and reads the cursors of one job's stream."""

    job_id: str

    def make(self, position: int | str) -> str:
        """The cursor of a position, or of the END."""
        return f"{position}.{zlib.crc32(self.job_id.encode()):08x}"

    def read(self, cursor: str) -> int | str:
        """The position, or END. Raises Refusal INVALID_ARGUMENT for a cursor not of this job."""
        if cursor == self.make(END):
            return END
        digits = cursor.partition(".")[0]
        if digits.isdecimal() and len(digits) <= POSITION_DIGITS:
            position = int(digits)
            if cursor == self.make(position):
                return position
        text = "is not an event id of this stream"
        raise Refusal(Reason.INVALID_ARGUMENT, f"after {text}", violations=(("after", text),))


class FollowMethods:
    """StreamJobLogs, StreamJobMetrics."""

    def __init__(self, view: View, streams: Streams, reader: JobReader) -> None:
        self._view = view
        self._streams = streams
        self._reader = reader

    async def StreamJobLogs(
        self, request: api.StreamJobLogsRequest, call: Call
    ) -> AsyncIterator[stream_pb2.StreamJobLogsResponse | None]:
        """Lines after a cursor or from a tail; then, following, new ones until the end."""
        job = await self._reader.find(request.job_id, call.identity.tenant_id)
        cursors = Cursors(job.job_id)
        follow = request.follow if request.HasField("follow") else True
        level = request.level if request.HasField("level") else stream_pb2.INFO
        rank = request.rank if request.HasField("rank") else None
        position, gap = await self._log_start(request, cursors, level=level, rank=rank)
        yield None  # the call is good
        if gap is not None:
            yield stream_pb2.StreamJobLogsResponse(events=[gap])
        until_s = asyncio.get_running_loop().time() + WHOLE_WITHIN_S
        async with _News(self._view, self._streams, job.job_id) as news:
            while True:
                complete = await self._is_complete(job)
                lines, looked = await self._streams.lines(
                    job.job_id, after=position, limit=BATCH_LINES, rank=rank, min_level=level
                )
                gone = (await self._streams.log_bounds(job.job_id)).first - 1
                if position < gone:  # before they were read, or while they were
                    gap = _gap(cursors, position, gone, reason="RETENTION")
                    yield stream_pb2.StreamJobLogsResponse(events=[gap])
                    position = gone
                    continue
                for part in _parts(lines):
                    yield _log_batch(part, cursors)
                if looked > position:
                    position = looked
                    continue
                if complete is not None:
                    yield _log_end(cursors, complete)
                    return
                left_s = until_s - asyncio.get_running_loop().time()
                if not follow and (left_s <= 0 or not await self._has_ended(job)):
                    return
                await news.wait(LOOK_AGAIN_S if follow else left_s)
                yield None  # the border looks whether the caller may still listen

    async def StreamJobMetrics(
        self, request: api.StreamJobMetricsRequest, call: Call
    ) -> AsyncIterator[stream_pb2.StreamJobMetricsResponse | None]:
        """The newest point, at most once an interval, until the end."""
        job = await self._reader.find(request.job_id, call.identity.tenant_id)
        cursors = Cursors(job.job_id)
        interval_s = request.interval if request.HasField("interval") else DEFAULT_INTERVAL_S
        position = self._after(request.after, cursors)
        yield None
        async with _News(self._view, self._streams, job.job_id) as news:
            loop = asyncio.get_running_loop()
            next_s = loop.time()
            while True:
                complete = await self._is_complete(job)
                if complete is not None or loop.time() >= next_s:
                    newest = (await self._streams.metrics_bounds(job.job_id)).last
                    if newest > position:
                        points = self._streams.points(job.job_id, after=newest - 1, limit=1)
                        for placed in await points:
                            yield _metrics_event(placed, cursors)
                        position, next_s = newest, loop.time() + interval_s
                if complete is not None:
                    end = stream_pb2.StreamEnd(status=convert.status_value(complete.status))
                    event = stream_pb2.MetricsEvent(id=cursors.make(END), end=end)
                    yield stream_pb2.StreamJobMetricsResponse(events=[event])
                    return
                wait_s = next_s - loop.time()
                await news.wait(min(wait_s, LOOK_AGAIN_S) if wait_s > 0 else LOOK_AGAIN_S)
                yield None

    def _after(self, after: str, cursors: Cursors) -> int:
        position = cursors.read(after) if after else 0
        if isinstance(position, str):
            raise Refusal(Reason.STREAM_ENDED, "the stream had ended there")
        return position

    async def _log_start(
        self, request: api.StreamJobLogsRequest, cursors: Cursors, *, level: int, rank: int | None
    ) -> tuple[int, stream_pb2.LogEvent | None]:
        """Position after which to begin, and a gap to tell first where the log is a shorter one."""
        bounds = await self._streams.log_bounds(request.job_id)
        if not request.after:
            tail = request.tail if request.HasField("tail") else DEFAULT_TAIL
            if tail == 0:
                return bounds.last, None
            if tail < 0:
                return 0, None
            start = await self._streams.tail_start(
                request.job_id, count=tail, rank=rank, min_level=level
            )
            return start, None
        position = self._after(request.after, cursors)
        if position > bounds.last:
            return bounds.last, _gap(cursors, position, bounds.last, reason="RESET")
        return position, None

    async def _has_ended(self, job: Job) -> bool:
        """Whether the job is final and nothing of it runs: what its log still lacks is on its way."""
        now = await self._reader.find(job.job_id, job.tenant_id)
        leases = self._view.leases_of_job(job.job_id)
        return now.is_final and all(lease.is_ended for lease in leases)

    async def _is_complete(self, job: Job) -> Job | None:
        """The final job once its agents have sent everything, or cannot be asked; else None.

        A lease leaves the view when its agent has shipped every line and forgotten it.
        """
        now = await self._reader.find(job.job_id, job.tenant_id)
        if not now.is_final:
            return None
        for lease in self._view.leases_of_job(job.job_id):
            node = self._view.nodes.get(lease.node_id)
            if node is not None and not node.unreachable_since_ms:
                return None
        return now


class _News:
    """Waits for either a change of the job or new entries in its streams.

    One task hands the streams' wake-ups on to the watch of the job, so that a wait is one wait.
    """

    def __init__(self, view: View, streams: Streams, job_id: str) -> None:
        self._view = view
        self._job_id = job_id
        self._watch = view.watch(Kind.JOB, job_id)
        self._subscription = streams.subscribe(job_id)
        self._handing_on = asyncio.create_task(self._hand_on())

    async def __aenter__(self) -> _News:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._handing_on.cancel()
        self._subscription.close()
        self._view.unwatch(Kind.JOB, self._job_id, self._watch)

    async def wait(self, timeout_s: float) -> None:
        """Returns when something is new, or after the timeout.

        Raises:
            Refusal: NOT_LEADER, the coordinator stops.
        """
        await self._watch.wait(timeout_s)
        if self._view.closed:
            raise Refusal(
                Reason.NOT_LEADER, "the coordinator is stopping", retry_after_s=RETRY_AFTER_S
            )

    async def _hand_on(self) -> None:
        while True:
            if await self._subscription.wait(LOOK_AGAIN_S):
                self._watch.wake()


def _parts(lines: list[Line]) -> Iterator[list[Line]]:
    """The lines, in messages of a bounded size; none for no lines."""
    start, size = 0, 0
    for index, line in enumerate(lines):
        length = len(line.text or "")
        if size + length > MESSAGE_CHARACTERS and index > start:
            yield lines[start:index]
            start, size = index, 0
        size += length
    if lines:
        yield lines[start:]


def _log_batch(lines: list[Line], cursors: Cursors) -> stream_pb2.StreamJobLogsResponse:
    suffix = cursors.make("")
    batch = stream_pb2.StreamJobLogsResponse()
    heads: dict[tuple[int | str, ...], stream_pb2.LogLine] = {}
    for line in lines:
        if line.text is None:
            gap = _gap(cursors, line.position - 1, line.position, reason="SPOOL_FULL")
            batch.events.append(gap)
            continue
        # Most lines of a batch differ in nothing but text and cursor; copying the rest costs less
        # than setting it field by field.
        key = (line.at_ms, line.rank, line.channel, line.level, line.attempt, line.node_id)
        head = heads.get(key) or heads.setdefault(key, _head(line))
        event = batch.events.add()
        event.id = cursor = f"{line.position}{suffix}"
        log = event.log
        log.CopyFrom(head)
        log.message, log.cursor = line.text, cursor
    return batch


def _head(line: Line) -> stream_pb2.LogLine:
    """All of a line but its text and cursor."""
    return stream_pb2.LogLine(
        level=line.level or stream_pb2.INFO,  # type: ignore[arg-type]
        timestamp=convert.timestamp(line.at_ms),
        rank=line.rank,
        node_id=line.node_id,
        attempt=line.attempt,
        stream=CHANNELS.get(line.channel, "stdout"),
    )


def _gap(cursors: Cursors, after: int, last: int, *, reason: str) -> stream_pb2.LogEvent:
    gap = stream_pb2.StreamGap(to=cursors.make(last), reason=reason)
    setattr(gap, "from", cursors.make(after))
    return stream_pb2.LogEvent(id=cursors.make(last), gap=gap)


def _log_end(cursors: Cursors, job: Job) -> stream_pb2.StreamJobLogsResponse:
    end = stream_pb2.StreamEnd(status=convert.status_value(job.status))
    return stream_pb2.StreamJobLogsResponse(
        events=[stream_pb2.LogEvent(id=cursors.make(END), end=end)]
    )


def _metrics_event(placed: Placed, cursors: Cursors) -> stream_pb2.StreamJobMetricsResponse:
    event = stream_pb2.MetricsEvent(
        id=cursors.make(placed.position), metrics=convert.point_message(placed.point)
    )
    return stream_pb2.StreamJobMetricsResponse(events=[event])
