"""Users who follow logs and metrics: they read, are cut off, and go on after the last event they took."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from coordinator.rpc.follow import CHANNELS, END, Cursors
from scaimind.agent.v1 import agent_service_pb2 as pb
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import stream_pb2
from tests.sim.clock import SECOND, Loop
from tests.sim.stream_checkers import LinesOnce, wrong
from tests.sim.streams import Asked, Follows, Over
from tests.sim.truth import Origin, SimFailure, Truth
from tests.sim.wire import BROKEN, Wire

PAUSES_MS = (0, 0, 0, 0, 0, 0, 0, 100, SECOND, 20 * SECOND)  # before a message is taken
LEAVES = 0.03  # by itself, after an event
BACK_MS = (10, SECOND, 5 * SECOND)
LOOKS_TWICE = 0.3  # asks for what comes after the end
FUTURE = 10**9
AGAIN = ("STORE_UNAVAILABLE", "NOT_LEADER")
NUMBERS = {name: number for number, name in CHANNELS.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where readers live. `connect` begins a stream, `seen` counts what is met."""

    loop: Loop
    rng: Random
    truth: Truth
    connect: Callable[[], Wire]
    lines: LinesOnce
    seen: Callable[..., None]
    trims: bool  # whether the coordinator lets old lines go


class Follower:
    """Follows one job for a user of a tenant until there is nothing more to hear."""

    def __init__(self, place: Place, job_id: str, tenant_id: str) -> None:
        self.job_id = job_id
        self.after = ""  # id of the last event it took
        self.has_ended = False
        self.is_over = False
        self.hurries = False
        self._place = place
        self._tenant_id = tenant_id
        self._rewinds = place.truth.rewinds
        self._wire: Wire | None = None
        self._heard: deque[Any] = deque()

    @property
    def is_odd(self) -> bool:
        """Whether the store has lost batches meanwhile: positions may have been given again."""
        return self._place.truth.rewinds != self._rewinds

    def begin(self) -> None:
        """Asks for what comes after the last event it took."""
        self._heard.clear()
        wire = self._wire = self._place.connect()
        wire.down = lambda item: self._hear(wire, item)
        wire.send(Asked(self.request(), self._tenant_id), up=True)

    def request(self) -> Follows:
        """What it asks for."""
        raise AssertionError

    def take(self, event: Any) -> None:
        """Reads one event."""
        raise AssertionError

    def refused(self, reason: str) -> None:
        """The stream has ended; "" is without a refusal."""
        if reason in AGAIN:
            self._return()
        elif reason == "JOB_NOT_FOUND" and self.is_odd:
            self.is_over = True
        elif reason != ("STREAM_ENDED" if self.after == Cursors(self.job_id).make(END) else ""):
            self.fail(f"its stream ends: {reason}")
        elif not self.has_ended:
            self.fail("its stream ends and nobody says so")
        else:
            self.is_over = True

    def fail(self, text: str) -> None:
        """Something is wrong with what it hears."""
        raise SimFailure(f"a reader of {self.job_id} after {self.after!r}: {text}", self.job_id)

    def _hear(self, wire: Wire, item: Any) -> None:
        if wire is not self._wire:
            return
        self._heard.append(item)
        if len(self._heard) == 1:
            self._wait(wire)

    def _wait(self, wire: Wire) -> None:
        pause_ms = 0 if self.hurries else self._place.rng.choice(PAUSES_MS)
        self._place.loop.after(pause_ms, lambda: self._take(wire))

    def _take(self, wire: Wire) -> None:
        if wire is not self._wire:
            return
        item = self._heard[0]
        if item is BROKEN:
            self._return()
        elif isinstance(item, Over):
            wire.break_off()
            self._place.truth.looked["readers"] += 1
            self._end(item.reason)
        elif self._read(wire, item):
            self._heard.popleft()
            if self._heard:
                self._wait(wire)

    def _read(self, wire: Wire, response: Any) -> bool:
        """Takes the events of a message; False where it has left in between."""
        wire.room.release()
        for event in response.events:
            self._place.truth.looked["readers"] += 1
            self.take(event)
            self.after = event.id
            if self.is_over:
                self._wire = None
                wire.break_off()
                return False
            if not self.hurries and self._place.rng.random() < LEAVES:
                wire.break_off()
                self._return()
                return False
        return True

    def _end(self, reason: str) -> None:
        if not reason and self.has_ended and self._place.rng.random() < LOOKS_TWICE:
            self._return()
        elif not reason and self.has_ended:
            self.is_over = True
        else:
            self.refused(reason)

    def _return(self) -> None:
        self._wire = None
        self._place.seen("reader returns", self.kind())
        self._place.loop.after(self._place.rng.choice(BACK_MS), self.begin)

    def kind(self) -> str:
        """Where it goes on."""
        if self.has_ended:
            return "at the end"
        return "in the middle" if self.after else "at the beginning"


class LogReader(Follower):
    """Wants every line of a log once and in order. `rank`: of one rank; `tail`: how many older ones."""

    def __init__(
        self, place: Place, job_id: str, tenant_id: str, *, rank: int | None, tail: int
    ) -> None:
        super().__init__(place, job_id, tenant_id)
        self._rank = rank
        self._tail = tail
        self._is_from_start = tail < 0
        self._position = 0 if tail < 0 else -1
        self._kept: dict[Origin, list[str | None]] = {}

    def request(self) -> Follows:
        request = api.StreamJobLogsRequest(
            job_id=self.job_id, level=stream_pb2.DEBUG, tail=self._tail, after=self.after
        )
        if self._rank is not None:
            request.rank = self._rank
        return request

    def take(self, event: Any) -> None:
        what = event.WhichOneof("event")
        if self.is_odd:
            self.has_ended = self.has_ended or what == "end"
            return
        if self.has_ended:
            self.fail(f"{what} after the end")
        if what == "end":
            self.has_ended = True
            self._check()
            return
        position = int(event.id.partition(".")[0])
        if what == "gap":
            self._gap(event.gap, position)
        else:
            self._step(position)
            self._line(event.log)
        self._position = position

    def _step(self, position: int) -> None:
        if self._position < 0:
            return
        is_next = position == self._position + 1
        if not is_next and (self._rank is None or position <= self._position):
            self.fail(f"{position} follows {self._position}")

    def _gap(self, gap: Any, position: int) -> None:
        self._place.seen("gap", gap.reason)
        if gap.reason == "SPOOL_FULL":
            self._step(position)
        elif gap.reason != "RETENTION" or not self._place.trims or position <= self._position:
            self.fail(f"there is a gap: {gap.reason}")
        self._is_from_start = False
        for lines in self._kept.values():
            lines.append(None)

    def _line(self, log: Any) -> None:
        origin = (self.job_id, log.attempt, log.rank, NUMBERS[log.stream])
        if origin not in self._place.truth.printed or self._rank not in (None, log.rank):
            self.fail(f"{log.message!r} is not of this log")
        self._kept.setdefault(origin, []).append(log.message)

    def _check(self) -> None:
        """It has all that was printed."""
        for origin, printed in self._place.truth.printed.items():
            mine = origin[0] == self.job_id and self._rank in (None, origin[2])
            if not mine or printed.is_mixed or origin[3] == pb.EVENTS:
                continue
            fault = wrong(
                self._kept.get(origin, []),
                bytes(printed.data).decode(),
                whole=self._place.lines.is_whole(origin, printed),
                begun=self._is_from_start,
                gaps=True,
            )
            if fault:
                self.fail(f"{origin}: {fault}")


class MetricReader(Follower):
    """Wants points that only go forward."""

    def request(self) -> Follows:
        return api.StreamJobMetricsRequest(job_id=self.job_id, interval=1, after=self.after)

    def take(self, event: Any) -> None:
        what = event.WhichOneof("event")
        if what == "end":
            self.has_ended = True
            return
        position = int(event.id.partition(".")[0])
        if self.after and position <= int(self.after.partition(".")[0]) and not self.is_odd:
            self.fail(f"point {position} comes again")
        if event.metrics.values["loss"] != event.metrics.step + 0.5:
            self.fail(f"step {event.metrics.step} has other values")


class Stranger(Follower):
    """Somebody who must not see anything, or asks for nonsense: all he hears is a refusal."""

    def __init__(
        self, place: Place, job_id: str, tenant_id: str, *, after: str, wanted: str
    ) -> None:
        super().__init__(place, job_id, tenant_id)
        self.after = after
        self._wanted = wanted

    def request(self) -> Follows:
        return api.StreamJobLogsRequest(job_id=self.job_id, after=self.after)

    def take(self, event: Any) -> None:
        if event.WhichOneof("event") == "gap":
            self._place.seen("gap", event.gap.reason)
        is_reset = event.WhichOneof("event") == "gap" and event.gap.reason == "RESET"
        if self._wanted != "RESET" or not is_reset:
            self.fail(f"he is shown {event}")
        self.is_over = True

    def refused(self, reason: str) -> None:
        if reason in AGAIN:
            self._return()
        elif reason == self._wanted or self.is_odd:
            self.is_over = True
        else:
            self.fail(f"he is told {reason!r}")
