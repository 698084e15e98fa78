"""A driver and a store of virtual time around the real core.

It does what the real driver does: a batch of commands is stepped, placed once, committed once, then
answered, then acted upon. In between it crashes, or the store does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from coordinator.core.commands import Command, Recover, Tick
from coordinator.core.core import Core, CoreSettings
from coordinator.core.decision import Effect, Event, Heard, Rejected, Reply
from coordinator.core.records import Job, Kind, Lease, LeaseAction, LeaseState, Node
from tests.sim.clock import Loop
from tests.sim.kept import RecordsKept
from tests.sim.messages import Answer, Call, Desired, Revision
from tests.sim.swarm import Swarm
from tests.sim.trace import show_event
from tests.sim.truth import SimFailure, Truth

Respond = Callable[[Reply | Rejected | None], None]
BATCH = 16
SETTINGS = CoreSettings(max_placements_per_pass=7, max_deadlines_per_tick=3)


@dataclass(slots=True)
class Hold:
    """A call whose answer waits for a change."""

    call: Call
    send: Callable[[Answer], None]


class SimCoordinator:
    """The coordinator's program: memory that dies, a store that does not."""

    def __init__(
        self, loop: Loop, rng: Random, swarm: Swarm, *, truth: Truth, note: Callable[[str], None]
    ) -> None:
        self.loop = loop
        self.store = RecordsKept()
        self.commits = 0
        self.faults = True
        self.up = False
        self._rng = rng
        self._swarm = swarm
        self._truth = truth
        self._note = note
        self._epoch = 0
        self._life = 0
        self._core = Core(SETTINGS)
        self._queue: deque[tuple[Command, Respond]] = deque()
        self._busy = False
        self._timer_ms = 0
        self._holds: dict[str, list[Hold]] = {}

    # life and death

    def start(self) -> None:
        """Takes leadership and loads what is stored."""
        if self.up:
            return
        self.up = True
        self._life += 1
        self._load()

    def crash(self) -> None:
        """Memory is gone; whoever waits for an answer waits in vain."""
        if not self.up:
            return
        self._note("coordinator crashes")
        self.up = False
        self._life += 1
        self._queue.clear()
        self._holds.clear()
        self._busy = False

    def _load(self) -> None:
        self._epoch += 1
        self._core = self.store.reload(SETTINGS)
        self._core.check_invariants()
        self._busy = False
        self._note(f"coordinator leads, epoch {self._epoch}")
        decision = self._core.step(Recover(epoch=self._epoch), self.loop.now_ms)
        self._commit(decision.events)
        self._soon()

    # commands

    def submit(self, command: Command, respond: Respond) -> None:
        """Queues a command; `respond(None)` says that nobody knows what became of it."""
        if self.up:
            self._queue.append((command, respond))
            self._soon()

    def _soon(self) -> None:
        life = self._life

        def turn() -> None:
            if self.up and self._life == life and not self._busy:
                self._turn()

        self.loop.after(0, turn)

    def _turn(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH))]
        now_ms = self.loop.now_ms
        events: list[Event] = []
        effects: list[Effect] = []
        replies: list[Reply | Rejected | None] = []
        for command, _ in batch:
            decision = self._core.step(command, now_ms)
            replies.append(decision.reply)
            events += decision.events
            effects += decision.effects
        due_ms = self._core.next_deadline_ms()
        if due_ms is not None and due_ms <= now_ms:
            decision = self._core.step(Tick(), now_ms)
            events += decision.events
            effects += decision.effects
        decision = self._core.schedule(now_ms)
        events += decision.events
        effects += decision.effects
        self._finish(batch, replies, events=events, effects=effects)

    def _finish(
        self,
        batch: list[tuple[Command, Respond]],
        replies: list[Reply | Rejected | None],
        *,
        events: list[Event],
        effects: list[Effect],
    ) -> None:
        durable = any(not isinstance(event, Heard) for event in events)
        fault = self._fault() if durable else ""
        if fault == "crash before commit":
            self.crash()
            return
        if fault == "commit fails":
            self._lose_memory(batch)
            return
        life = self._life
        self._busy = True

        def committed() -> None:
            if not self.up or self._life != life:
                return  # it crashed before the commit
            self._commit(events)
            self._busy = False
            if fault == "crash after commit":
                self.crash()
                return
            if fault == "commit lands but fails":
                self._lose_memory(batch)
                return
            for (_, respond), reply in zip(batch, replies, strict=True):
                respond(reply)
            for effect in effects:
                if not self._swarm.effects_dropped:
                    self._release(effect.node_id)
            self._set_timer()
            if self._queue:
                self._soon()

        self.loop.after(self._rng.randint(1, 20) if durable else 0, committed)

    def _fault(self) -> str:
        """What goes wrong with this commit; "" for nothing."""
        if not self.faults:
            return ""
        drawn = self._rng.random()
        for name, rate in (
            ("crash before commit", self._swarm.crash_before_commit),
            ("crash after commit", self._swarm.crash_after_commit),
            ("commit fails", self._swarm.commit_fails),
            ("commit lands but fails", self._swarm.commit_lands_but_fails),
        ):
            if drawn < rate:
                self._note(name)
                return name
            drawn -= rate
        return ""

    def _lose_memory(self, batch: list[tuple[Command, Respond]]) -> None:
        """It is not known whether the commit landed: memory may be ahead of the truth."""
        for _, respond in batch:
            respond(None)
        self._load()

    def _commit(self, events: tuple[Event, ...] | list[Event]) -> None:
        self.store.commit(events)
        self.commits += 1
        for event in events:
            if not isinstance(event, Heard):
                self._note(show_event(event, self.loop.now_ms))
        self._truth.commit(events, self.commits)
        if self.commits % 7 == 0:
            self._core.check_invariants()
        if self.commits % 40 == 0:
            self.check_replay()

    def check_replay(self) -> None:
        """What is stored gives the state that lives. Only between turns are the two the same."""
        if self.up and self.store.reload(SETTINGS).digest() != self._core.digest():
            raise SimFailure("replay does not equal live")

    def _set_timer(self) -> None:
        due_ms = self._core.next_deadline_ms()
        if due_ms is None or (self.loop.now_ms < self._timer_ms <= due_ms):
            return
        life = self._life
        self._timer_ms = max(due_ms, self.loop.now_ms + 1)

        def due() -> None:
            if self.up and self._life == life and not self._busy:
                self._turn()

        self.loop.after(self._timer_ms - self.loop.now_ms, due)

    # agents

    def sync(self, call: Call, send: Callable[[Answer], None]) -> None:
        """Decides a report, and answers it now or when something changes."""

        def decided(reply: Reply | Rejected | None) -> None:
            if isinstance(reply, Reply):
                self._decided(call, send, reply)

        self.submit(call.report, decided)

    def _decided(self, call: Call, send: Callable[[Answer], None], reply: Reply) -> None:
        node_id = call.report.node_id
        if reply.superseded:
            answer = self._answer(call)
            send(Answer(call.number, answer.revision, (), self.commits, superseded=True))
            return
        if self._revision(node_id) != call.seen:
            send(self._answer(call))
            return
        hold = Hold(call, send)
        self._holds.setdefault(node_id, []).append(hold)
        life = self._life

        def over() -> None:
            if self.up and self._life == life and hold in self._holds.get(node_id, []):
                self._holds[node_id].remove(hold)
                send(self._answer(call))

        self.loop.after(call.hold_ms, over)

    def _release(self, node_id: str) -> None:
        for hold in self._holds.pop(node_id, []):
            if self._revision(node_id) != hold.call.seen:
                hold.send(self._answer(hold.call))
            else:
                self._holds.setdefault(node_id, []).append(hold)

    def _desired(self, node_id: str) -> list[Lease]:
        found = [
            record
            for (kind, _), record in self.store.live.items()
            if kind is Kind.LEASE and isinstance(record, Lease)
        ]
        mine = [lease for lease in found if lease.node_id == node_id and not lease.is_ended]
        return sorted(mine, key=lambda lease: lease.lease_id)

    def _revision(self, node_id: str) -> Revision:
        leases = self._desired(node_id)
        return self._epoch, tuple((x.lease_id, x.epoch, x.action.value) for x in leases)

    def _answer(self, call: Call) -> Answer:
        node_id = call.report.node_id
        leases = tuple(
            Desired(
                lease.lease_id,
                lease.epoch,
                lease.action is LeaseAction.RUN,
                lease.grace_ms,
                lease if lease.state is LeaseState.GRANTED else None,
            )
            for lease in self._desired(node_id)
        )
        return Answer(call.number, self._revision(node_id), leases, self.commits)

    # what the store shows

    def job(self, job_id: str) -> Job | None:
        """A job, live or history."""
        found = self.store.live.get((Kind.JOB, job_id))
        return found if isinstance(found, Job) else self.store.history.get(job_id)

    def jobs(self) -> list[Job]:
        """All jobs, live and history, by id."""
        live = [record for record in self.store.live.values() if isinstance(record, Job)]
        return sorted([*live, *self.store.history.values()], key=lambda job: job.job_id)

    def nodes(self) -> list[Node]:
        """All nodes, by id."""
        found = [record for record in self.store.live.values() if isinstance(record, Node)]
        return sorted(found, key=lambda node: node.node_id)
