"""The only loop that decides.

Commands wait in one bounded queue. The loop takes a batch, steps the core through it, lets the core
place once, commits all events together, and only then publishes, answers and wakes agents: commit,
then answer, then act. While a commit is under way the next batch gathers by itself, so the busier the
coordinator is, the more commands share one write to disk.

When it is not known whether a commit landed, the same batch is offered again (stores are idempotent by
batch id). When that does not help, memory may be ahead of the truth: it is thrown away and reloaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from coordinator.core.commands import Command, Recover, Renew, Tick
from coordinator.core.core import Core
from coordinator.core.decision import Event, Heard, Rejected, Reply
from coordinator.core.known import Known
from coordinator.core.reasons import Reason
from coordinator.runtime.clock import Clock
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View
from coordinator.store.protocol import Batch, Conflict, Fenced, Store, StoreUnavailable

COMMIT_TRIES = 4
RETRY_DELAY_S = 0.05
RELOAD_DELAY_MAX_S = 5.0
RETRY_AFTER_S = 1.0
PULSES = 5  # looks at the clock in the time that counts as a stall, however little there is to do
COMMIT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

log = structlog.get_logger("coordinator.driver")

T = TypeVar("T")


@dataclass(slots=True)
class _Waiting:
    command: Command
    answer: asyncio.Future[Reply | Rejected]


@dataclass(slots=True)
class Figures:
    """Counters of the loop, for the metrics endpoint."""

    commands_total: int = 0
    commits_total: int = 0
    events_total: int = 0
    reloads_total: int = 0
    rejected_total: dict[str, int] = field(default_factory=dict)
    commit_seconds: float = 0.0
    commit_buckets: list[int] = field(default_factory=lambda: [0] * (len(COMMIT_BUCKETS_S) + 1))

    def committed(self, events: int, seconds: float) -> None:
        """Counts a commit."""
        self.commits_total += 1
        self.events_total += events
        self.commit_seconds += seconds
        self.commit_buckets[bisect_left(COMMIT_BUCKETS_S, seconds)] += 1


class Driver:
    """Owns the core. Everything that changes goes through `submit`."""

    def __init__(
        self,
        make_core: Callable[[], Core],
        store: Store,
        *,
        clock: Clock,
        queue_limit: int,
        batch_limit: int,
    ) -> None:
        self.view = View()
        self.figures = Figures()
        self.leading = False
        self._store_is_lost = False
        self._make_core = make_core
        self._core = make_core()
        self._store = store
        self._clock = clock
        self._queue_limit = queue_limit
        self._batch_limit = batch_limit
        self._queue: deque[_Waiting] = deque()
        self._deciding: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._epoch = 0
        self._version = 0
        self._pulse_ms: int | None = None  # when the last turn began; None before the first

    @property
    def waiting(self) -> int:
        """Commands in the queue."""
        return len(self._queue)

    def look(self, question: Callable[[Known, int], T]) -> T:
        """What is to be seen of the state now. It runs ahead of the store by what is being committed:
        for what is told as expected, never as a fact."""
        return question(self._core.state, self._clock.now_ms())

    async def lead(self, epoch: int) -> None:
        """Loads the state, as the leader of an epoch. Raises StoreUnavailable, Conflict, Fenced."""
        self._epoch = epoch
        await self._reload()

    async def submit(self, command: Command) -> Reply:
        """Has a command decided; returns once the decision is durable.

        Raises:
            Refusal: the core's, OVERLOADED when the queue is full, NOT_LEADER, STORE_UNAVAILABLE.
        """
        if not self.leading:
            lost = self._store_is_lost
            raise Refusal(
                Reason.STORE_UNAVAILABLE if lost else Reason.NOT_LEADER,
                "the store does not answer" if lost else "the coordinator is not ready",
                retry_after_s=RETRY_AFTER_S,
            )
        if len(self._queue) >= self._queue_limit:
            raise Refusal(Reason.OVERLOADED, "too many requests wait", retry_after_s=RETRY_AFTER_S)
        waiting = _Waiting(command, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._wake.set()
        outcome = await waiting.answer
        if isinstance(outcome, Rejected):
            counts = self.figures.rejected_total
            counts[outcome.reason] = counts.get(outcome.reason, 0) + 1
            raise Refusal.of(outcome)
        return outcome

    async def run(self) -> None:
        """Decides until cancelled; whatever ends it, nobody is left waiting.

        Raises:
            Fenced: another leader has taken over.
            Exception: the core doubts its state; nothing of that turn was published.
        """
        try:
            while True:
                await self._wait_for_work()
                await self._turn()
        finally:
            self.leading = False
            self._fail_waiting()

    async def _wait_for_work(self) -> None:
        if self._queue:
            return
        deadline_ms = self._core.next_deadline_ms()
        pulse_s = timeout_s = self._core.settings.stall_ms / PULSES / 1000
        if deadline_ms is not None:
            timeout_s = min(pulse_s, max(0.0, (deadline_ms - self._clock.now_ms()) / 1000))
        # Not wait_for: before Python 3.12 it may swallow a cancellation that comes with the wake-up.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        self._wake.clear()

    async def _turn(self) -> None:
        count = min(len(self._queue), self._batch_limit)
        batch = self._deciding = [self._queue.popleft() for _ in range(count)]
        now_ms = self._clock.now_ms()
        events: list[Event] = []
        outcomes: list[Reply | Rejected] = []
        if self._pulse_ms is not None and now_ms - self._pulse_ms > self._core.settings.stall_ms:
            log.warning("held_up", seconds=(now_ms - self._pulse_ms) / 1000)
            events.extend(self._core.step(Renew(), now_ms).events)
        self._pulse_ms = now_ms
        for waiting in batch:
            decision = self._core.step(waiting.command, now_ms)
            assert decision.reply is not None
            outcomes.append(decision.reply)
            events.extend(decision.events)
        deadline_ms = self._core.next_deadline_ms()
        if deadline_ms is not None and deadline_ms <= now_ms:
            events.extend(self._core.step(Tick(), now_ms).events)
        placed = self._core.schedule(now_ms)
        events.extend(placed.events)
        self.figures.commands_total += len(batch)
        try:
            await self._commit(events)
        except (StoreUnavailable, Conflict) as error:
            log.error("commit_failed", error=str(error), commands=len(batch))
            self._fail(self._deciding)
            await self._reload_until_it_works()
            return
        self.view.apply(events)
        self.view.foresee(placed.foreseen)
        self.view.version = self._version
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(outcome)
        self._deciding = []

    async def _commit(self, events: list[Event]) -> None:
        durable = tuple(event for event in events if not isinstance(event, Heard))
        if not durable:
            return
        batch = Batch(id=uuid.uuid4().hex, events=durable)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for attempt in range(COMMIT_TRIES):
            try:
                self._version = await self._store.commit(
                    batch, epoch=self._epoch, expected_version=self._version
                )
            except StoreUnavailable:
                if attempt == COMMIT_TRIES - 1:
                    raise
                await asyncio.sleep(RETRY_DELAY_S * 2**attempt)
            else:
                self.figures.committed(len(durable), loop.time() - began_s)
                return

    async def _reload(self) -> None:
        snapshot = await self._store.load()
        core = self._make_core()
        core.load(snapshot.records)
        self._version = snapshot.version
        recovered = core.step(Recover(epoch=self._epoch), self._clock.now_ms())
        await self._commit(list(recovered.events))
        self._core = core
        self.view.reset(snapshot.records, epoch=self._epoch)
        self.view.apply(recovered.events)
        self.view.version = self._version
        self.figures.reloads_total += 1
        self.leading = True
        self._wake.set()

    async def _reload_until_it_works(self) -> None:
        self.leading = False
        self._store_is_lost = True
        delay_s = RETRY_DELAY_S
        while True:
            try:
                await self._reload()
            except Fenced:
                raise
            except (StoreUnavailable, Conflict) as error:
                log.error("reload_failed", error=str(error), retry_in_s=delay_s)
                self._fail_waiting()
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RELOAD_DELAY_MAX_S)
            else:
                self._store_is_lost = False
                return

    def _fail_waiting(self) -> None:
        """Fails everything that was taken in and not answered."""
        self._fail(self._deciding)
        self._fail(self._queue)
        self._deciding = []
        self._queue.clear()

    def _fail(self, waiting: Iterable[_Waiting]) -> None:
        for one in waiting:
            if not one.answer.done():
                one.answer.set_exception(
                    Refusal(
                        Reason.STORE_UNAVAILABLE,
                        "it is not known whether the request took effect; "
                        "ask again with the same request id",
                        retry_after_s=RETRY_AFTER_S,
                    )
                )
                # Nobody may be waiting any more; that is no fault worth a warning.
                one.answer.exception()


__all__ = ["Driver", "Fenced", "Figures"]
