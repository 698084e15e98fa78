"""The link to the coordinator: one Sync call at a time, held by the server, for ever again.

Theory of operation. A call carries all that is observed and returns all that is desired; it is
held until the desired list changes, so a grant arrives at once, and it is the heartbeat. When
something observed changes while a call is held, a new one with a higher sequence takes its place.
Calls begin at least `MIN_INTERVAL_S` apart, and longer the more leases each of them tells: a single
change waits for nothing, a burst becomes one call. What an answer asks for is begun before the next
call, which then tells of it. Whatever fails is tried again for ever, with jitter, and jobs never
notice.

Only an answer proves contact. Where changes come so fast that no call lives to be answered, one is sent
that is not held, and nothing takes its place: else a busy node would take itself for one that is cut off.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import grpc
import structlog

from node_agent.credential import Credential
from node_agent.runtime.kernel import boot_now_ms
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

if TYPE_CHECKING:  # the class is there for type checkers only
    from scaimind.agent.v1.agent_service_pb2_grpc import AgentServiceAsyncStub

MIN_INTERVAL_S = 0.003
INTERVAL_OF_LEASE_S = 0.0003
BEGIN_S = 0.006  # what it takes to start the ranks of a lease, or to remove its folder
IDLE_INTERVAL_S = 0.05  # where an answer came at once and brought nothing
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 1.0
DEADLINE_SLACK_S = 5.0

CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
)

log = structlog.get_logger()

_Call = grpc.aio.UnaryUnaryCall[agent_pb2.SyncRequest, agent_pb2.SyncResponse]


class Leases(Protocol):
    """What the session needs of the keeper."""

    on_change: Callable[[], None]
    """Called whenever what `reports` returns has changed."""

    def reports(self) -> list[agent_pb2.ObservedLease]:
        """Every lease that is to be reported."""

    def desire(self, leases: Sequence[agent_pb2.DesiredLease]) -> None:
        """Takes over the whole list of what is desired."""


class Trial(Protocol):
    """What the session needs of the canary."""

    on_change: Callable[[], None]
    """Called when one has ended."""

    def report(self) -> agent_pb2.ObservedCanary | None:
        """How the desired one ended; None before."""

    def desire(self, canary: agent_pb2.DesiredCanary | None) -> None:
        """Takes over which one is desired."""


class Superseded(Exception):
    """A newer agent has taken this node over; this one must end and touch nothing."""


class Session:
    """Keeps the coordinator and the keeper in agreement."""

    def __init__(
        self,
        stub: AgentServiceAsyncStub,
        leases: Leases,
        *,
        node_id: str,
        incarnation: str,
        generation: int,
        offer: agent_pb2.NodeOffer,
        hold_ms: int,
        credential: Credential,
        on_contact: Callable[[int], None],
        trial: Trial | None = None,
        expect: Callable[[Sequence[agent_pb2.LeaseSpec]], None] = lambda specs: None,
    ) -> None:
        """Speaks for one start of the agent; `generation` counts the starts on this node.

        `on_contact` is told of each answer, before it is acted on: at which boot time (ms) its
        call was sent. It may raise OSError. `expect` is told of jobs that may come here next.
        """
        self._stub = stub
        self._leases = leases
        self._request = agent_pb2.SyncRequest(
            node_id=node_id,
            incarnation=incarnation,
            generation=generation,
            hold_ms=hold_ms,
            offer=offer,
        )
        self._credential = credential
        self._on_contact = on_contact
        self._changed = asyncio.Event()
        self._leader_epoch = 0
        self._failures = 0
        self._in_contact = False
        self._sent_s = self._next_s = 0.0
        self._sent_boot_ms = self._answered_boot_ms = 0
        self._hold_ms = hold_ms
        leases.on_change = self._changed.set
        self._expect = expect
        self._trial = trial
        if trial is not None:
            trial.on_change = self._changed.set

    def offer(self, offer: agent_pb2.NodeOffer) -> None:
        """Replaces what the node offers, and tells it at once."""
        self._request.offer.CopyFrom(offer)
        self._changed.set()

    async def run(self) -> None:
        """Works until cancelled.

        Raises:
            Superseded: the coordinator has told this agent to end.
        """
        while True:
            if not await self._joined():
                continue
            call = self._call()
            try:
                answer = await self._answer(call)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    self._credential.refused()
                await self._failed(error)
                continue
            finally:
                call.cancel()
            next_s = self._next_s
            if answer is not None:
                next_s = max(next_s, await self._take(answer))
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))

    async def _joined(self) -> bool:
        """Whether there is a credential to present; waits a little where none can be had now."""
        try:
            await self._credential.ready(self._stub)
        except grpc.aio.AioRpcError as error:
            await self._failed(error)
            return False
        except OSError as error:
            log.error("credential_not_written", reason=error.strerror)
            await self._back_off()
            return False
        return True

    def _call(self) -> _Call:
        self._changed.clear()
        self._request.sequence += 1
        del self._request.leases[:]
        self._request.leases.extend(self._leases.reports())
        self._request.ClearField("canary")
        ended = self._trial.report() if self._trial is not None else None
        if ended is not None:
            self._request.canary.CopyFrom(ended)
        interval_s = MIN_INTERVAL_S + INTERVAL_OF_LEASE_S * len(self._request.leases)
        self._sent_boot_ms = boot_now_ms()
        is_due = self._sent_boot_ms - self._answered_boot_ms > 2 * self._hold_ms
        self._request.hold_ms = 0 if is_due else self._hold_ms
        self._sent_s = time.monotonic()
        self._next_s = self._sent_s + interval_s
        return self._stub.Sync(
            self._request,
            timeout=self._hold_ms / 1000 + DEADLINE_SLACK_S,
            metadata=self._credential.metadata,
        )

    async def _answer(self, call: _Call) -> agent_pb2.SyncResponse | None:
        """Waits for the answer; None where a change makes a call that is held out of date before."""
        if not self._request.hold_ms:
            return await call
        waits = [asyncio.ensure_future(call), asyncio.ensure_future(self._out_of_date())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return await call if waits[0].done() else None
        finally:
            for wait in waits:
                wait.cancel()

    async def _out_of_date(self) -> None:
        """Returns when something has changed since the call, and the next one may begin."""
        await self._changed.wait()
        await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))

    async def _take(self, answer: agent_pb2.SyncResponse) -> float:
        """Acts on an answer; returns when the next call may begin, on the monotonic clock."""
        if answer.superseded:
            raise Superseded
        if answer.leader_epoch < self._leader_epoch:
            log.warning("answer_of_an_old_leader_ignored", epoch=answer.leader_epoch)
            await self._back_off()
            return 0.0
        if not self._in_contact:
            log.info("in_contact", leader_epoch=answer.leader_epoch)
        self._in_contact = True
        self._failures = 0
        self._answered_boot_ms = self._sent_boot_ms
        self._leader_epoch = answer.leader_epoch
        try:
            self._on_contact(self._sent_boot_ms)
        except OSError as error:
            log.error("contact_not_noted", reason=error.strerror, hint="fenced jobs will stop")
        news = answer.revision != self._request.seen_revision
        self._request.seen_revision = answer.revision
        self._leases.desire(answer.leases)
        if news:
            self._expect(answer.expected)
        if self._trial is not None:
            self._trial.desire(answer.canary if answer.HasField("canary") else None)
        if news:
            return time.monotonic() + BEGIN_S
        return self._sent_s + IDLE_INTERVAL_S

    async def _failed(self, error: grpc.aio.AioRpcError) -> None:
        if self._in_contact or self._failures == 0:
            log.warning("no_contact", code=error.code().name, details=error.details())
        self._in_contact = False
        # Another coordinator may number its answers anew: the next one is wanted in any case.
        self._request.seen_revision = 0
        await self._back_off()

    async def _back_off(self) -> None:
        longest_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(self._failures, 10))
        self._failures += 1
        await asyncio.sleep(random.uniform(0, longest_s))
