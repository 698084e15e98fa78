"""A driver and a store of virtual time around the real core.

It does what the real driver does: a batch of commands is stepped, placed once, committed once, then
answered, then acted upon. In between it crashes, or the store does. Its clock is the real one, over a
wall clock that jumps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from coordinator.core.commands import Command, Recover, Renew, Tick
from coordinator.core.core import Core, CoreSettings
from coordinator.core.decision import Changed, Decision, Effect, Event, Heard, Rejected, Reply
from coordinator.core.health import SOUND, HealthRules
from coordinator.core.records import Job, JobStatus, Kind, Lease, Node
from coordinator.rpc.ahead import JOBS_MAX
from coordinator.runtime.clock import Clock
from coordinator.runtime.view import View
from tests.sim.clock import LocalClock, Loop
from tests.sim.kept import RecordsKept
from tests.sim.messages import Answer, Call, Order
from tests.sim.streams import (
    BEFORE_EFFECTS,
    BEFORE_FSYNC,
    BEFORE_REPLY,
    BEFORE_WRITE,
    COMMIT_FAILS,
    COMMIT_LANDS,
    Asked,
    SimDatabase,
    StreamService,
)
from tests.sim.swarm import Swarm
from tests.sim.tasks import Burial
from tests.sim.truth import SimFailure, Truth
from tests.sim.wire import BROKEN, Wire

Respond = Callable[[Reply | Rejected | None], None]
BATCH = 16
CHECK_EVERY, RELOAD_EVERY = 3, 48  # batches that change something; then all is looked at
SETTINGS = CoreSettings(
    max_placements_per_pass=7,
    max_deadlines_per_tick=3,
    max_histories=5,
    min_run_ms=10_000,
    near_checkpoint_ms=60_000,
    near_data_ms=90_000,
    max_preemptions_per_day=3,
    health=HealthRules(
        half_life_ms=300_000, rest_ms=15_000, most_rest_ms=60_000, window_ms=120_000
    ),
)

IN_RECOVERY = "crash in recovery"
CRASH_POINTS = (BEFORE_WRITE, BEFORE_FSYNC, BEFORE_REPLY, BEFORE_EFFECTS)
COMMIT_FAULTS = (*CRASH_POINTS, COMMIT_FAILS, COMMIT_LANDS)
APPENDS_PER_FAULT = 2  # there are more of them than of batches


@dataclass(slots=True)
class Hold:
    """A call whose answer waits for a change."""

    call: Call
    send: Callable[[Answer], None]


class SimCoordinator:
    """The coordinator's program: memory that dies, a store that does not."""

    def __init__(
        self,
        loop: Loop,
        rng: Random,
        swarm: Swarm,
        *,
        truth: Truth,
        note: Callable[[str | Event], None],
        seen: Callable[..., None],
        burial: Burial,
        settings: CoreSettings = SETTINGS,
    ) -> None:
        hands = swarm.coordinator_clock
        self.loop = loop
        self.settings = settings
        self.wall = LocalClock(loop, offset_ms=hands.offset_ms, rate=hands.rate)
        self.clock = Clock(self.wall.wall_ms, self.wall.elapsed_ms)
        self.store = RecordsKept()
        self.view = View()
        self.kill_at: dict[int, str] = {}  # batch → where to crash, whatever the seed says
        self.kill_at_append: dict[int, str] = {}  # the same of appends to logs
        self.appends = 0
        self.kill_in_recovery = 0  # how many times to crash while it starts
        self.decides_since_ms = 0  # without a death or a standstill, by its own clock
        self.jumped = False  # whether its wall clock ever did
        self.batches = 0  # written down, or about to be
        self.commits = 0
        self._changes = 0  # commits of anything but that somebody was heard
        self.faults = True
        self.up = False
        self._rng = rng
        self._swarm = swarm
        self._truth = truth
        self._note = note
        self._seen = seen
        self._stalled_until_ms = 0
        self._held_up = False
        self._epoch = 0
        self._life = 0
        self._core = Core(settings)
        self._burial = burial
        self.streams = SimDatabase(
            Random(rng.random()),
            fault=self._append_fault,
            keeps_copies="batches lost" in swarm.faults,
        )
        self.streams.crash = self.crash
        self._service: StreamService | None = None
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
        self._epoch += 1
        # what a clock says at the start is believed: it is set right before
        self.wall.offset_ms = self._swarm.coordinator_clock.offset_ms
        self.clock = Clock(self.wall.wall_ms, self.wall.elapsed_ms)
        self.view = View()
        self._service = StreamService(
            self._burial.tasks(partial(self._later_in, self._life), self.wall),
            self.streams,
            self.view,
            stored=self._stored,
            log_bytes_max=self._swarm.log_bytes_max,
            told=self._told,
        )
        self._load()

    def crash(self) -> None:
        """Memory is gone; whoever waits for an answer waits in vain."""
        if not self.up:
            return
        self._note("coordinator crashes")
        self.up = False
        self._life += 1
        if self._service is not None:
            self._service.close()
        self._queue.clear()
        self._holds.clear()
        self._busy = False

    def jump(self, length_ms: int) -> None:
        """Somebody sets its wall clock."""
        self.wall.offset_ms += length_ms
        self.jumped = True

    def stall(self, length_ms: int) -> None:
        """Its loop stands still; what comes waits."""
        self._stalled_until_ms = self.loop.now_ms + length_ms
        self._held_up = True

    def lose_batches(self, count: int) -> None:
        """The store fails over to a copy that lacks the newest batches, and the leader with it."""
        self.crash()
        lost = self.store.lose(count)
        self.streams.lose(self._rng.randint(0, count))
        self._note(f"the store has lost {lost} batches")
        self._truth.rewind(self.store)

    def _load(self) -> None:
        self._core = self.store.reload(self.settings)
        self._core.check_invariants()
        if not self.store.is_held_by(self._core):
            raise SimFailure("replay does not equal what was stored")
        self._busy = False
        self._timer_ms = 0
        if self._dies_in_recovery():
            self._seen(IN_RECOVERY, *self.lease_states())
            self.crash()
            return
        self._note(f"coordinator leads, epoch {self._epoch}")
        self._truth.lead()
        self.view.reset(self.store.live.values(), epoch=self._epoch)
        self.decides_since_ms = self.clock.now_ms()
        decision = self._step(Recover(epoch=self._epoch), self.decides_since_ms)
        self._commit(decision.events)
        self._soon()

    def _dies_in_recovery(self) -> bool:
        if self.kill_in_recovery:
            self.kill_in_recovery -= 1
            return True
        return self.faults and self._rng.random() < self._swarm.chance(IN_RECOVERY)

    def _later(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Does something in this life; a loop that stands still does it once it goes on."""
        self.loop.after(delay_ms, partial(self._due, self._life, act))

    def _later_in(self, life: int, delay_ms: int, act: Callable[[], None]) -> None:
        self.loop.after(delay_ms, partial(self._due, life, act))

    def _due(self, life: int, act: Callable[[], None]) -> None:
        if not self.up or self._life != life:
            return
        if self.loop.now_ms < self._stalled_until_ms:
            wait_ms = self._stalled_until_ms - self.loop.now_ms
            self.loop.after(wait_ms, partial(self._due, life, act))
        else:
            act()

    # commands

    def submit(self, command: Command, respond: Respond) -> None:
        """Queues a command; `respond(None)` says that nobody knows what became of it."""
        if self.up:
            self._queue.append((command, respond))
            self._soon()

    def _soon(self) -> None:
        self._later(0, self._turn_if_free)

    def _turn_if_free(self) -> None:
        if not self._busy:
            self._turn()

    def _turn(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH))]
        now_ms = self.clock.now_ms()
        events: list[Event] = []
        effects: list[Effect] = []
        replies: list[Reply | Rejected | None] = []
        if self._held_up:  # the real driver sees it by its clock
            self._held_up = False
            self.decides_since_ms = now_ms
            events += self._step(Renew(), now_ms).events
        for command, _ in batch:
            decision = self._step(command, now_ms)
            replies.append(decision.reply)
            events += decision.events
            effects += decision.effects
        due_ms = self._core.next_deadline_ms()
        if due_ms is not None and due_ms <= now_ms:
            decision = self._step(Tick(), now_ms)
            events += decision.events
            effects += decision.effects
        decision = self._core.schedule(now_ms)
        events += decision.events
        effects += decision.effects
        self._finish(batch, replies, events=events, effects=effects, foreseen=decision.foreseen)

    def _step(self, command: Command, now_ms: int) -> Decision:
        self._truth.played[type(command)] += 1
        return self._core.step(command, now_ms)

    def _finish(
        self,
        batch: list[tuple[Command, Respond]],
        replies: list[Reply | Rejected | None],
        *,
        events: list[Event],
        effects: list[Effect],
        foreseen: tuple[tuple[str, tuple[str, ...]], ...],
    ) -> None:
        durable = any(not isinstance(event, Heard) for event in events)
        fault = self._fault(events) if durable else ""
        if fault == BEFORE_WRITE:
            self.crash()
            return
        if fault == COMMIT_FAILS:
            self._lose_memory(batch)
            return
        self._busy = True

        def committed() -> None:
            if fault == BEFORE_FSYNC:
                self.crash()
                return
            self._commit(events)
            self.view.foresee(foreseen)
            self._busy = False
            if fault == BEFORE_REPLY:
                self.crash()
                return
            if fault == COMMIT_LANDS:
                self._lose_memory(batch)
                return
            for (_, respond), reply in zip(batch, replies, strict=True):
                respond(reply)
            if fault == BEFORE_EFFECTS:
                self.crash()
                return
            for effect in effects:
                if self._rng.random() >= self._swarm.chance("effects dropped"):
                    self._release(effect.node_id)
            self._set_timer()
            if self._queue:
                self._soon()

        self._later(self._rng.randint(1, 20) if durable else 0, committed)

    def _fault(self, events: list[Event]) -> str:
        """What goes wrong with this commit; "" for nothing."""
        self.batches += 1
        found = self.kill_at.get(self.batches, "")
        drawn = self._rng.random()
        for name in COMMIT_FAULTS:
            rate = self._swarm.chance(name)
            if self.faults and not found and drawn < rate:
                found = name
            drawn -= rate
        if found:
            self._note(found)
            causes = [f"fact {event.cause}" for event in events if isinstance(event, Changed)]
            self._seen(found, *causes)
        return found

    def _lose_memory(self, batch: list[tuple[Command, Respond]]) -> None:
        """It is not known whether the commit landed: memory may be ahead of the truth."""
        for _, respond in batch:
            respond(None)
        self._load()

    def _commit(self, events: tuple[Event, ...] | list[Event]) -> None:
        self.commits += 1
        durable = [event for event in events if not isinstance(event, Heard)]
        self.store.commit(durable)
        for event in durable:
            self._note(event)
        self.view.apply(events)
        self._truth.commit(events, self.commits)
        if not durable:
            return
        self._changes += 1
        if self._changes % CHECK_EVERY == 0:
            self._core.check_invariants()
            self._truth.looked["invariants"] += 1
            self.check_replay(reloads=self._changes % RELOAD_EVERY == 0)

    def check_replay(self, *, reloads: bool = True) -> None:
        """What lives is what is stored, and what is stored gives it again. Only between turns."""
        if not self.up:
            return
        self._truth.looked["replay"] += 1
        if not self.store.is_held_by(self._core):
            raise SimFailure("what lives is not what is stored")
        if reloads and not self.store.is_held_by(self.store.reload(self.settings)):
            raise SimFailure("replay does not equal live")

    def _set_timer(self) -> None:
        due_ms = self._core.next_deadline_ms()
        if due_ms is None:
            return
        at_ms = self.loop.now_ms + max(1, self.wall.world_ms(due_ms - self.clock.now_ms()))
        if self.loop.now_ms < self._timer_ms <= at_ms:
            return
        self._timer_ms = at_ms
        self._later(at_ms - self.loop.now_ms, self._turn_if_free)

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
            revision = self.view.revision(node_id)
            send(Answer(call.number, self._epoch, revision, (), superseded=True))
            return
        if self.view.revision(node_id) != call.seen or reply.stale:
            send(self._answer(call))
            return
        hold = Hold(call, send)
        self._holds.setdefault(node_id, []).append(hold)

        def over() -> None:
            if hold in self._holds.get(node_id, []):
                self._holds[node_id].remove(hold)
                send(self._answer(call))

        self._later(call.hold_ms, over)

    def _release(self, node_id: str) -> None:
        for hold in self._holds.pop(node_id, []):
            if self.view.revision(node_id) != hold.call.seen:
                hold.send(self._answer(hold.call))
            else:
                self._holds.setdefault(node_id, []).append(hold)

    def _answer(self, call: Call) -> Answer:
        node_id = call.report.node_id
        known = {(one.lease_id, one.epoch) for one in call.report.leases}
        leases = tuple(
            Order.of(
                lease,
                self.commits,
                is_known=(lease.lease_id, lease.epoch) in known,
                image=self._image_of(lease),
            )
            for lease in self.view.desired_of_node(node_id)
        )
        expected = self._expected_on(node_id)
        health = self.view.nodes[node_id].health if node_id in self.view.nodes else SOUND
        canary = (health.canary, health.asked) if health.asked else None
        revision = self.view.revision(node_id)
        return Answer(call.number, self._epoch, revision, leases, canary=canary, expected=expected)

    def _image_of(self, lease: Lease) -> str:
        job = self.view.job(lease.job_id)
        return job.image_digest if job is not None else ""

    def _expected_on(self, node_id: str) -> tuple[tuple[str, str], ...]:
        """For whom images are to be brought to a node, before anything is granted there."""
        jobs = self.view.expected_on(node_id)[:JOBS_MAX]
        for job in jobs:
            self._truth.looked["expected"] += 1
            if job.status is not JobStatus.QUEUED or not job.wants:
                raise SimFailure(f"{job.job_id} is {job.status} and expected", job.job_id)
        return tuple((job.job_id, job.image_digest) for job in jobs)

    # streams

    def take_push(self, wire: Wire, first: object) -> None:
        """An agent has begun a stream of batches."""
        if self.up and self._service is not None and first is not BROKEN:
            self._service.push(wire, first)
        else:
            wire.break_off()

    def take_follow(self, wire: Wire, asked: Asked) -> None:
        """A user has begun to follow a job."""
        if self.up and self._service is not None and isinstance(asked, Asked):
            self._service.follow(wire, asked)
        else:
            wire.break_off()

    async def _stored(self, job_id: str) -> Job | None:
        return self.store.history.get(job_id)

    def _told(self, job_id: str, response: Any) -> None:
        if any(event.HasField("end") for event in response.events):
            self._truth.show_end(job_id)

    def _append_fault(self) -> str:
        """What goes wrong with an append; "" for nothing."""
        self.appends += 1
        found = self.kill_at_append.get(self.appends, "")
        drawn = self._rng.random() * APPENDS_PER_FAULT
        for name in COMMIT_FAULTS:
            rate = self._swarm.chance(name)
            if self.faults and not found and drawn < rate:
                found = name
            drawn -= rate
        if found:
            self._note(f"append: {found}")
            self._seen(found, "fact APPENDED")
        return found

    # what the store shows

    def job(self, job_id: str) -> Job | None:
        """A job, live or history."""
        found = self.store.live.get((Kind.JOB, job_id))
        return found if isinstance(found, Job) else self.store.history.get(job_id)

    def jobs(self) -> list[Job]:
        """All jobs, live and history, by id."""
        live = [record for record in self.store.live.values() if isinstance(record, Job)]
        return sorted([*live, *self.store.history.values()], key=lambda job: job.job_id)

    def lease(self, lease_id: str) -> Lease | None:
        """A live lease."""
        found = self.store.live.get((Kind.LEASE, lease_id))
        return found if isinstance(found, Lease) else None

    def lease_states(self, node_id: str = "") -> list[str]:
        """Where leases are, of one node or of all, for the count of situations."""
        return [
            f"lease {record.state.name}"
            for record in self.store.live.values()
            if isinstance(record, Lease) and node_id in ("", record.node_id)
        ]

    def nodes(self) -> list[Node]:
        """All nodes, by id."""
        found = [record for record in self.store.live.values() if isinstance(record, Node)]
        return sorted(found, key=lambda node: node.node_id)
