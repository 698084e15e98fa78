"""When waiting jobs will start: the real core in virtual time.

Theory of operation. A forecast takes a core over, uses it up, and plays the agents: ranks that were
granted start, attempts end when they are expected to, what is asked to save or stop does so. Everything
between is decided by the code that decides live, so whatever the scheduler learns, its forecast knows.

Nobody falls silent in a forecast, nothing fails, and what nobody knows has ended. It is
bounded in steps (jobs started or ended) and in time; what has not started by then has no answer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from coordinator.core.cadence import hears, interval_of
from coordinator.core.commands import Command, ObservedLease, SyncNode, Tick
from coordinator.core.core import Core
from coordinator.core.decision import Changed, Decision, Event, Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Checkpoint, Job, Lease, LeaseAction, LeaseState
from coordinator.core.replacing import replace
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn

START_MS = 2_000  # from a grant until all ranks run
SAVE_MS = 30_000  # from asking for a checkpoint until it is proven, where nothing is known of it
STOP_MS = 5_000  # from asking ranks to stop until nothing is left of them
FOREVER_MS = 1 << 52
FORETOLD = "forecast-"  # how ids of checkpoints begin that are only foretold
_FIRST_SEQUENCE = 1 << 50  # above whatever an agent has counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Luck:
    """How things go in a forecast: by default as likely as not."""

    part: Mapping[str, float] = field(default_factory=dict)
    """Of jobs that do not run by the median: in which part of all cases they have ended by then."""
    saves: bool = True  # whether who has never proven a checkpoint proves one when asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far a forecast looks."""

    steps: int = 1_000  # jobs started or ended
    horizon_ms: int = 30 * 24 * 3_600_000


class _Act(IntEnum):
    """What a virtual agent reports of a lease."""

    RUN = 0
    SAVE = 1
    STOP = 2
    END = 3


def settings_for(settings: CoreSettings) -> CoreSettings:
    """The settings of a core that is used for forecasts: silence means nothing there."""
    return replace(
        settings,
        unreachable_after_ms=FOREVER_MS,
        replace_after_ms=2 * FOREVER_MS,
        recovery_grace_ms=0,
        aging_ms=FOREVER_MS,  # what a week of waiting changes is not foretold
    )


class Forecast:
    """One look ahead. The core must have been made with `settings_for`, and is used up."""

    def __init__(
        self,
        core: Core,
        now_ms: int,
        *,
        luck: Luck | None = None,
        note: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.now_ms = now_ms
        self._luck = luck or Luck()
        self._note = note  # told of every fact
        self.starts_ms: dict[str, int] = {}  # when each waiting job was granted devices
        self.steps = 0
        self.ended_last: tuple[str, ...] = ()  # jobs whose end came last
        self.ended_last_ms = -1  # and when
        self.core = core
        self._acts: list[tuple[int, int, str, _Act]] = []
        self._order = 0
        self._sequence = _FIRST_SEQUENCE
        self._reported: dict[str, ObservedLease] = {}
        turn = Turn(core.state, now_ms, epoch=0)
        for node_id in list(core.state.doubt.restored):
            turn.put(replace(core.state.nodes[node_id], restored=False), Reason.NODE_CHANGED)
        for node_id in list(core.state.doubt.unknown):
            turn.hear(node_id, core.state.nodes[node_id].incarnation, sequence=0)
        for lease in list(core.state.leases.values()):
            self._take_on(lease)

    def act(self, command: Command) -> Reply | Rejected | None:
        """Somebody wants something, now."""
        decision = self.core.step(command, self.now_ms)
        self._follow(decision)
        return decision.reply

    def run(
        self, *, limits: Limits, wanted: str = "", until: Callable[[], bool] = lambda: False
    ) -> int | None:
        """Goes on until the wanted job starts or `until` says so, nothing is left to happen, or a
        limit is met.

        Answers when the wanted job starts; None where that is not known.
        """
        end_ms = self.now_ms + limits.horizon_ms
        self._follow(self.core.schedule(self.now_ms))
        while wanted not in self.starts_ms and self.steps < limits.steps and not until():
            next_ms = self._next_ms()
            if next_ms is None or next_ms > end_ms:
                break
            self.now_ms = max(self.now_ms, next_ms)
            self._step()
        return self.starts_ms.get(wanted)

    def after(self, job_id: str) -> tuple[str, ...]:
        """The jobs with whose ends a job has just been granted devices; none where it was not by that."""
        at_ms = self.starts_ms.get(job_id)
        return self.ended_last if at_ms is not None and at_ms == self.ended_last_ms else ()

    def _next_ms(self) -> int | None:
        acts_ms = self._acts[0][0] if self._acts else None
        due_ms = self.core.next_deadline_ms()
        known = [one for one in (acts_ms, due_ms) if one is not None]
        return min(known, default=None)

    def _step(self) -> None:
        """Everything that happens at one moment, and one pass."""
        due: dict[str, list[tuple[Lease, _Act]]] = {}
        ended = []
        while self._acts and self._acts[0][0] <= self.now_ms:
            _, _, lease_id, act = heapq.heappop(self._acts)
            lease = self.core.state.leases.get(lease_id)
            if lease is None or lease.is_ended or self._is_over(lease_id):
                continue
            due.setdefault(lease.node_id, []).append((lease, act))
            if act is _Act.END:
                ended.append(lease.job_id)
        for node_id, acts in due.items():
            for lease, act in acts:
                self._reported[lease.lease_id] = self._report(lease, act)
            self._follow(self._sync(node_id))
        if ended:
            self.ended_last = tuple(dict.fromkeys(ended))
            self.ended_last_ms = self.now_ms
            self.steps += len(self.ended_last)
        due_ms = self.core.state.deadlines.next_ms()
        if due_ms is not None and due_ms <= self.now_ms:
            self._follow(self.core.step(Tick(), self.now_ms))
        self._follow(self.core.schedule(self.now_ms))

    def _sync(self, node_id: str) -> Decision:
        state = self.core.state
        node = state.nodes[node_id]
        self._sequence += 1
        leases = [
            found
            for lease in state.leases_on(node_id)
            if not lease.is_ended and (found := self._reported.get(lease.lease_id))
        ]
        command = SyncNode(
            node_id=node_id,
            incarnation=node.incarnation,
            generation=node.generation,
            sequence=self._sequence,
            offer=node.offer,
            leases=tuple(leases),
        )
        return self.core.step(command, self.now_ms)

    def _report(self, lease: Lease, act: _Act) -> ObservedLease:
        before = self._reported.get(lease.lease_id) or _as_known(lease, self.core)
        match act:
            case _Act.RUN:
                self._plan_end(lease)
                return replace(before, state=LeaseState.RUNNING, started_at_ms=self.now_ms)
            case _Act.SAVE:
                saved = Checkpoint(
                    checkpoint_id=f"{FORETOLD}{lease.save}",
                    step=0,
                    uri="",
                    size_bytes=0,
                    digest="",
                    created_at_ms=self.now_ms,
                    attempt=lease.attempt,
                )
                return replace(before, saved=lease.save, checkpoints=(*before.checkpoints, saved))
            case _Act.STOP | _Act.END:
                done = act is _Act.END
                return replace(
                    before,
                    state=LeaseState.ENDED,
                    done=done,
                    stopped=not done,
                    started_at_ms=before.started_at_ms or self.now_ms,
                    ended_at_ms=self.now_ms,
                )

    def _follow(self, decision: Decision) -> None:
        """Has the virtual agents do what a decision desires."""
        for event in decision.events:
            self._note(event)
            if not isinstance(event, Changed):
                continue
            record = event.record
            if isinstance(record, Lease):
                self._take_on(record)
            elif isinstance(record, Job) and event.cause is Reason.PLACED:
                self._note_start(record)

    def _note_start(self, job: Job) -> None:
        if job.job_id not in self.starts_ms:
            self.starts_ms[job.job_id] = self.now_ms
            self.steps += 1

    def _take_on(self, lease: Lease) -> None:
        """Plans what the lease's agent will report next."""
        node = self.core.state.nodes.get(lease.node_id)
        if node is None or node.unreachable_since_ms:
            return  # nobody knows when that ends
        if lease.is_ended or self._is_over(lease.lease_id):
            return
        known = self._reported.get(lease.lease_id)
        if lease.action is LeaseAction.STOP:
            self._plan(_Act.STOP, lease, in_ms=STOP_MS)
        elif (
            lease.node_rank == 0
            and lease.save > (known.saved if known else lease.saved)
            and self._saves(lease)
        ):
            self._plan(_Act.SAVE, lease, in_ms=self._save_ms(lease))
        if known is None:
            self._reported[lease.lease_id] = _as_known(lease, self.core)
            if lease.state < LeaseState.RUNNING:
                self._plan(_Act.RUN, lease, in_ms=START_MS)
            else:
                self._plan_end(lease)

    def _save_ms(self, lease: Lease) -> int:
        """In how long what was asked of a lease is proven. Who has had that time already is taken to need
        as long again as it has had."""
        job = self.core.state.jobs[lease.job_id]
        since_ms = job.attempt.times.until_ms if job.attempt else 0
        waited_ms = self.now_ms - since_ms if since_ms else 0
        takes_ms = _takes_ms(job)
        return takes_ms - waited_ms if waited_ms < takes_ms else waited_ms

    def _saves(self, lease: Lease) -> bool:
        return self._luck.saves or bool(self.core.state.jobs[lease.job_id].checkpoints)

    def _plan_end(self, lease: Lease) -> None:
        job = self.core.state.jobs[lease.job_id]
        self._plan(_Act.END, lease, in_ms=max(1, self._left_ms(job)))

    def _left_ms(self, job: Job) -> int:
        """For how much longer a running job will run, at most to its time limit."""
        state = self.core.state
        age_ms, part = state.age_ms(job, self.now_ms), self._luck.part.get(job.job_id, 0.5)
        left_ms = state.estimates.part_left_ms(job, age_ms, part=part)
        limit_ms = job.policy.max_runtime_ms
        if not limit_ms:
            return left_ms
        started_ms = job.attempt.started_at_ms if job.attempt else 0
        return min(left_ms, limit_ms - (self.now_ms - started_ms if started_ms else 0))

    def _plan(self, act: _Act, lease: Lease, *, in_ms: int) -> None:
        self._order += 1
        heapq.heappush(self._acts, (self.now_ms + in_ms, self._order, lease.lease_id, act))

    def _is_over(self, lease_id: str) -> bool:
        known = self._reported.get(lease_id)
        return known is not None and known.state is LeaseState.ENDED


def _takes_ms(job: Job) -> int:
    """How long after an ask the next checkpoint of a job is proven: no longer than it takes between two of
    them, whether it hears or not."""
    interval_ms = interval_of(job)
    return interval_ms if interval_ms and (interval_ms < SAVE_MS or not hears(job)) else SAVE_MS


def _as_known(lease: Lease, core: Core) -> ObservedLease:
    """What the agent would say again of a lease, as far as the coordinator knows."""
    own: Iterable[Checkpoint] = ()
    job = core.state.jobs.get(lease.job_id)
    if job is not None and lease.node_rank == 0:
        own = (one for one in job.checkpoints if one.attempt == lease.attempt)
    return ObservedLease(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        state=lease.state,
        checkpoints=tuple(own),
        saved=lease.saved,
        started_at_ms=lease.started_at_ms,
    )
