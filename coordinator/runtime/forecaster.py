"""Asks the forecaster, a process of its own that follows what is published.

It runs only while somebody wants to know: the first question starts it and has it load everything, from
then on it is fed what each commit changed, and when nobody has asked for a while it ends. Whatever goes
wrong with it costs an answer and nothing else; the next question starts another.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import structlog

from coordinator.core.commands import Command
from coordinator.core.decision import Changed, Event, Heard, Retired
from coordinator.core.outlook import Change
from coordinator.core.records import Job, Kind
from coordinator.core.settings import CoreSettings
from coordinator.forecast.terms import (
    FOLLOWED,
    FRAME_BYTES_MAX,
    LENGTH,
    Answer,
    Ask,
    Emptied,
    Empty,
    Explain,
    Explained,
    Feed,
    Foresee,
    Foreseen,
    Found,
    Load,
    Question,
    Simulate,
    Simulated,
    frame,
)
from coordinator.runtime.clock import Clock
from coordinator.runtime.view import View

ANSWER_S = 10.0
IDLE_S = 300.0  # without a question, until the process ends
FRESH_S = 5.0  # how old the forecast of all jobs may be
REST = 10  # between two of them, times what one took
PATIENCE_MS = 2_000  # what has waited for less will most likely start before it can be foretold
LOAD_AT_ONCE = 200  # records, between turns of the loop
BEHIND_MAX = 100_000  # events that the process may be behind by, before it is given up
ASKED_MAX = 32
KNOWN_MAX = 200_000  # jobs of which a start is known; a look forgets all of before

F = TypeVar("F", Explained, Emptied, Simulated)

log = structlog.get_logger("coordinator.forecaster")


class Unforeseen(Exception):
    """The forecaster has no answer now; asking again later may help."""


class Forecaster:
    """The coordinator's end; one for each term of a leader."""

    def __init__(self, view: View, clock: Clock, *, settings: CoreSettings) -> None:
        self._view = view
        self._clock = clock
        self._settings = settings
        self._talking: asyncio.Task[None] | None = None  # of the process; None while there is none
        self._news: list[Event] = []
        self._asks: list[Ask] = []
        self._wake = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Found | None]] = {}
        self._numbers = itertools.count(1)
        self._starts_ms: dict[str, int] = {}
        self.looks = 0  # at all jobs, that were answered
        self.pid: int | None = None  # of the process, while there is one
        self._looking: asyncio.Task[None] | None = None
        self._look_due_s = 0.0
        self._asked_s = 0.0
        view.tap = self.feed

    async def explain(self, job_id: str) -> Explained:
        """Why a job waits, when it starts, what would help. Raises Unforeseen.

        What it tells of the start is what is known from then on to who reads of the job.
        """
        now_ms = self._clock.now_ms()
        found = await self._answer(Explain(job_id, now_ms), Explained)
        if found.wait_p50_ms is not None and len(self._starts_ms) < KNOWN_MAX:
            self._starts_ms[job_id] = now_ms + found.wait_p50_ms
        return found

    async def empty(self, node_ids: Sequence[str], wish: Command | None = None) -> Emptied:
        """How nodes are emptied, or with a wish, would be. Raises Unforeseen."""
        question = Empty(node_ids=tuple(node_ids), now_ms=self._clock.now_ms(), wish=wish)
        return await self._answer(question, Emptied)

    async def simulate(self, changes: Sequence[Change], horizon_ms: int) -> Simulated:
        """What some changes would come to. Raises Unforeseen."""
        question = Simulate(
            changes=tuple(changes), now_ms=self._clock.now_ms(), horizon_ms=horizon_ms
        )
        return await self._answer(question, Simulated)

    def known_start_ms(self, job: Job) -> int | None:
        """When a waiting job is expected to start, as the last look knew; None if it did not."""
        return self._starts_ms.get(job.job_id)

    def start_ms(self, job: Job) -> int | None:
        """The same, asked by who reads: looks again where the last look is old."""
        loop = asyncio.get_running_loop()
        is_long = self._clock.now_ms() - job.updated_at_ms >= PATIENCE_MS
        is_looking = self._looking is not None and not self._looking.done()
        if is_long and not is_looking and loop.time() >= self._look_due_s:
            self._looking = asyncio.create_task(self._look())
        return self.known_start_ms(job)

    def feed(self, events: Iterable[Event] | None) -> None:
        """Takes what was published; None where everything was read anew."""
        if self._talking is None:
            return
        if events is None or len(self._news) > BEHIND_MAX:
            self._give_up("reloaded" if events is None else "behind")
            return
        self._news.extend(events)
        self._wake.set()

    async def close(self) -> None:
        """Ends the process, and whoever waits for it goes without."""
        looking, talking = self._looking, self._talking
        self._give_up("closed")
        if looking is not None:
            looking.cancel()
        # who talks was told to end; told twice, it would not wait for the process that it ends
        if ending := {one for one in (looking, talking) if one is not None}:
            await asyncio.wait(ending)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with suppress(Unforeseen):
            found = await self._ask(Foresee(self._clock.now_ms()))
            self._starts_ms = found.starts_ms if isinstance(found, Foreseen) else {}
            self.looks += 1
        took_s = loop.time() - began_s
        self._look_due_s = loop.time() + max(FRESH_S, REST * took_s)

    async def _answer(self, question: Question, kind: type[F]) -> F:
        """Raises Unforeseen: too many ask, or the process does not answer."""
        if len(self._answers) >= ASKED_MAX:
            raise Unforeseen
        found = await self._ask(question)
        if not isinstance(found, kind):
            raise Unforeseen
        return found

    async def _ask(self, question: Question) -> Found | None:
        self._asked_s = asyncio.get_running_loop().time()
        if self._talking is None:
            self._talking = asyncio.create_task(self._talk())
        number = next(self._numbers)
        answer: asyncio.Future[Found | None]
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._asks.append(Ask(number, question))
        self._wake.set()
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answer
        except TimeoutError:
            raise Unforeseen from None
        finally:
            self._answers.pop(number, None)

    async def _talk(self) -> None:
        """The life of one process."""
        listening: asyncio.Task[None] | None = None
        process: asyncio.subprocess.Process | None = None
        try:
            process = await _start()
            self.pid = process.pid
            assert process.stdin is not None
            assert process.stdout is not None
            listening = asyncio.create_task(self._listen(process.stdout))
            await self._tell(process.stdin, listening)
        except (OSError, EOFError) as error:
            log.warning("forecaster_lost", reason=type(error).__name__)
        finally:
            if self._talking is asyncio.current_task():
                self._give_up("ended")
            if listening is not None:
                listening.cancel()
            if process is not None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                # its pipes as well: what it had forked may hold them open for a while
                process._transport.close()  # type: ignore[attr-defined]
                if self.pid == process.pid:
                    self.pid = None

    async def _tell(self, pipe: asyncio.StreamWriter, listening: asyncio.Task[None]) -> None:
        """Sends everything, then what changes and what is asked, until it is idle or gone."""
        loop = asyncio.get_running_loop()
        records = [one for one in self._view.records() if one.kind in FOLLOWED]
        records.sort(key=lambda one: one.kind is not Kind.QUEUE)  # whatever waits is filed by these
        self._news = [*_unknown(self._view)]  # from here on, what comes is newer than the records
        settings: CoreSettings | None = self._settings
        for first in range(0, max(1, len(records)), LOAD_AT_ONCE):
            pipe.write(frame(Load(tuple(records[first : first + LOAD_AT_ONCE]), settings)))
            settings = None
            await pipe.drain()
            await asyncio.sleep(0)
        doubted: set[str] = set()
        while not listening.done() and loop.time() - self._asked_s < IDLE_S:
            news, self._news = self._news, []
            told = tuple(_followed(news, doubted))
            if told:
                pipe.write(frame(Feed(told)))
            asks, self._asks = self._asks, []
            for ask in asks:
                pipe.write(frame(ask))
            await pipe.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S / 10):
                    await self._wake.wait()
            self._wake.clear()

    async def _listen(self, pipe: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                (length,) = LENGTH.unpack(await pipe.readexactly(LENGTH.size))
                if length > FRAME_BYTES_MAX:
                    break
                answer = pickle.loads(await pipe.readexactly(length))
                assert isinstance(answer, Answer)
                waiting = self._answers.get(answer.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer.found)
        self._wake.set()

    def _give_up(self, why: str) -> None:
        """Lets go of the process; the next question starts another."""
        if self._talking is None:
            return
        log.info("forecaster_ends", reason=why)
        talking, self._talking = self._talking, None
        if talking is not asyncio.current_task():
            talking.cancel()
        self._news.clear()
        self._asks.clear()
        self._starts_ms = {}
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_result(None)


def _unknown(view: View) -> Iterator[Heard]:
    for node_id, unknown in view.unknown.items():
        yield Heard(
            node_id=node_id,
            incarnation="",
            sequence=0,
            at_ms=unknown.since_ms,
            unknown=unknown.lease_ids,
        )


def _followed(events: Iterable[Event], doubted: set[str]) -> Iterator[Event]:
    """What decides when jobs start; `doubted` are the nodes that told of leases which nobody knows."""
    for event in events:
        if isinstance(event, Changed):
            if event.record.kind in FOLLOWED:
                yield event
        elif isinstance(event, Retired):
            if event.kind in FOLLOWED:
                yield event
        elif event.unknown:
            doubted.add(event.node_id)
            yield event
        elif event.node_id in doubted and not event.renewed:
            doubted.remove(event.node_id)
            yield event


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "coordinator.forecast",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("MIND_")},
    )


__all__ = ["Forecaster", "Unforeseen"]
