"""A small faithful model of an agent and of the machine below it.

The machine has a disk and runs ranks under supervisors: they outlive the agent. The agent writes down a
lease before it acts on it, reports everything that it knows with every call, keeps an ended lease until
it is not desired any more, and takes over only the answer to its newest call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from coordinator.core.commands import ObservedLease, SyncNode
from coordinator.core.records import Checkpoint, Device, Failure, Lease, LeaseState, Offer
from tests.sim.clock import SECOND, Loop
from tests.sim.messages import Answer, Call, Desired, Revision
from tests.sim.plans import Plan
from tests.sim.truth import Truth

HOLD_MS = 5 * SECOND
CALL_TIMEOUT_MS = 12 * SECOND
SHORT_GRACE_MS = 2 * SECOND


@dataclass(slots=True)
class Held:
    """A lease on the machine's disk, with what became of its ranks."""

    lease: Lease | None  # the grant; None for one that was only ever told to stop
    lease_id: str
    epoch: int
    told_at_commit: int
    state: LeaseState = LeaseState.ACCEPTED
    failure: Failure | None = None
    done: bool = False
    started_ms: int = 0
    ended_ms: int = 0
    stop_by_ms: int = 0
    checkpointing: bool = False
    checkpoints: list[Checkpoint] = field(default_factory=list)
    drained: bool = False


class SimNode:
    """One machine: disk, ranks, and an agent that comes and goes."""

    def __init__(
        self,
        node_id: str,
        devices: tuple[str, int],
        *,
        loop: Loop,
        rng: Random,
        truth: Truth,
        plans: dict[str, Plan],
        job_names: Callable[[str], str],
        call: Callable[[SimNode, Call], None],
    ) -> None:
        self.node_id = node_id
        self.loop = loop
        self.truth = truth
        self.agent_up = False
        self.power = True
        self.bad_devices: set[int] = set()
        self._kind, self._count = devices
        self._rng = rng
        self._plans = plans
        self._job_names = job_names
        self._call = call
        self._generation = 0  # on disk
        self.held: dict[str, Held] = {}  # on disk
        self._life = 0  # of the agent
        self._boot = 0  # of the machine
        self._sequence = 0
        self._calls = 0
        self._seen: Revision | None = None
        self._wanted: dict[str, Desired] | None = None

    # the agent

    def start_agent(self) -> None:
        """The agent's program starts. Its generation is above every one before, wiped or not."""
        if self.agent_up or not self.power:
            return
        self.agent_up = True
        self._life += 1
        self._generation = max(self._generation + 1, self.loop.now_ms // SECOND)
        self._sequence = 0
        self._seen = None
        self._wanted = None
        for held in list(self.held.values()):
            self._go_on(held)
        self._sync()

    def kill_agent(self) -> None:
        """The agent's program dies; the ranks do not notice."""
        self.agent_up = False
        self._life += 1
        self._calls += 1

    def cycle_power(self, *, wipe: bool) -> None:
        """Everything on the machine stops; with `wipe` it forgets everything as well."""
        self.kill_agent()
        self.power = False
        self._boot += 1
        for held in list(self.held.values()):
            ran = held.state in (LeaseState.RUNNING, LeaseState.STOPPING)
            if held.lease is not None and (ran or wipe):
                self.truth.asked.lost.add((held.lease.job_id, held.lease.attempt))
                self.truth.end(held.lease)
            if ran:
                lost = Failure(category="NODE_LOST", message="the node restarted")
                self._end(held, failure=lost)
        if wipe:
            self.held.clear()
            self._generation = 0

    def power_on(self) -> None:
        """The machine boots; its agent starts a little later."""
        self.power = True
        self.loop.after(self._rng.randint(100, 3000), self.start_agent)

    def take(self, answer: Answer) -> None:
        """Takes over an answer, if it belongs to the newest call."""
        if not self.agent_up or answer.call != self._calls:
            return
        if answer.superseded:
            self.kill_agent()
            return
        self._seen = answer.revision
        self._wanted = {want.lease_id: want for want in answer.leases}
        self._reconcile(answer.commit)
        self._sync()

    def _sync(self) -> None:
        self._calls += 1
        self._sequence += 1
        number, life = self._calls, self._life
        report = SyncNode(
            node_id=self.node_id,
            incarnation=f"{self.node_id}-{self._generation}-{self._life}",
            generation=self._generation,
            sequence=self._sequence,
            offer=self._offer(),
            leases=tuple(self._observed(held) for held in self.held.values()),
        )
        self._call(self, Call(number, report, self._seen, HOLD_MS))

        def give_up() -> None:
            if self.agent_up and self._life == life and self._calls == number:
                self._sync()

        self.loop.after(CALL_TIMEOUT_MS, give_up)

    def _changed(self) -> None:
        """Something on the machine has changed: the agent, if it is up, says so at once."""
        if self.agent_up:
            self._reconcile(0)
            self._sync()

    def _reconcile(self, commit: int) -> None:
        if self._wanted is None:
            return
        for held in list(self.held.values()):
            want = self._wanted.get(held.lease_id)
            if want is None or want.epoch != held.epoch:
                self._unwanted(held)
            elif not want.run:
                self._stop(held, want.grace_ms)
        for want in self._wanted.values():
            if want.lease_id not in self.held and commit:
                self._accept(want, commit)

    def _unwanted(self, held: Held) -> None:
        if held.state is not LeaseState.ENDED:
            self._stop(held, SHORT_GRACE_MS)
        elif held.drained:
            self.held.pop(held.lease_id, None)

    def _accept(self, want: Desired, commit: int) -> None:
        held = Held(want.spec, want.lease_id, want.epoch, commit)
        self.held[want.lease_id] = held
        if want.run and want.spec is not None:
            self._go_on(held)
        elif want.run:
            self._end(held, failure=Failure(category="NODE_LOST", message="unknown here"))
        else:
            self._end(held)

    def _offer(self) -> Offer:
        return Offer(
            devices=tuple(
                Device(
                    device_id=f"{self.node_id}-{index}",
                    index=index,
                    type=self._kind,
                    healthy=index not in self.bad_devices,
                )
                for index in range(self._count)
            ),
            cpu_count=64,
        )

    def _observed(self, held: Held) -> ObservedLease:
        return ObservedLease(
            lease_id=held.lease_id,
            epoch=held.epoch,
            state=held.state,
            done=held.done,
            failure=held.failure,
            checkpoints=tuple(held.checkpoints),
            checkpointing=held.checkpointing,
            started_at_ms=held.started_ms,
            ended_at_ms=held.ended_ms,
        )

    # the machine

    def _go_on(self, held: Held) -> None:
        """The agent prepares what it has accepted; what had ended it drains."""
        life = self._life

        def prepared() -> None:
            if self.agent_up and self._life == life and held.state < LeaseState.RUNNING:
                self._start_ranks(held)

        def drained() -> None:
            if self.agent_up and self._life == life:
                held.drained = True
                self._changed()

        if held.state is LeaseState.ENDED:
            self.loop.after(self._rng.randint(1, 500), drained)
        elif held.state < LeaseState.RUNNING:
            if self._rng.random() < 0.7:
                held.state = LeaseState.PREPARING
            self.loop.after(self._rng.randint(1, 2000), prepared)

    def _plan(self, lease: Lease) -> Plan:
        return self._plans[self._job_names(lease.job_id)]

    def _start_ranks(self, held: Held) -> None:
        assert held.lease is not None
        plan = self._plan(held.lease)
        fails = held.lease.attempt <= plan.fails
        if fails and plan.exit_code is None:
            self._fail(held, category="CONFIG", exit_code=None)
            return
        held.state = LeaseState.RUNNING
        held.started_ms = self.loop.now_ms
        self.truth.start(held.lease, now_ms=held.started_ms, told_at_commit=held.told_at_commit)
        if plan.checkpoints and held.lease.node_rank == 0:
            self._in(plan.duration_ms // 4, held, lambda: self._checkpoint(held))
        if not plan.hangs:
            self._in(plan.duration_ms, held, lambda: self._finish(held, fails=fails))
        self._changed()

    def _in(self, delay_ms: int, held: Held, act: Callable[[], None]) -> None:
        """Does something to ranks that still run then; supervisors need no agent for it."""
        boot = self._boot

        def still() -> None:
            if self._boot == boot and held.state is not LeaseState.ENDED:
                act()

        self.loop.after(delay_ms, still)

    def _checkpoint(self, held: Held) -> None:
        held.checkpointing = True
        self._changed()
        assert held.lease is not None
        pause_ms = max(5 * SECOND, self._plan(held.lease).duration_ms // 4)

        def proven() -> None:
            assert held.lease is not None
            held.checkpointing = False
            id = f"{held.lease_id}-c{len(held.checkpoints)}"
            held.checkpoints.append(
                Checkpoint(
                    checkpoint_id=id,
                    step=1,
                    uri=f"file:///{id}",
                    size_bytes=1,
                    digest="sha256:0",
                    created_at_ms=self.loop.now_ms,
                    attempt=held.lease.attempt,
                )
            )
            del held.checkpoints[:-2]
            self._changed()
            self._in(pause_ms, held, lambda: self._checkpoint(held))

        self._in(self._rng.randint(1, 1 + pause_ms), held, proven)

    def _finish(self, held: Held, *, fails: bool) -> None:
        assert held.lease is not None
        if held.state is LeaseState.STOPPING:
            return
        plan = self._plan(held.lease)
        if not fails:
            held.done = True
            self._ranks_ended(held)
        elif held.lease.node_rank == 0 or self._rng.random() < 0.5:
            self._fail(held, category="USER_CODE", exit_code=plan.exit_code)
        # else its peers wait for the rank that failed, until they are stopped

    def _fail(self, held: Held, *, category: str, exit_code: int | None) -> None:
        assert held.lease is not None
        self.truth.asked.failed.add((held.lease.job_id, held.lease.attempt))
        failure = Failure(category=category, message="it failed", exit_code=exit_code, rank=0)
        self._ranks_ended(held, failure=failure)

    def _stop(self, held: Held, grace_ms: int) -> None:
        if held.state is LeaseState.ENDED or held.state is LeaseState.STOPPING:
            return
        if held.state is not LeaseState.RUNNING:
            self._end(held)
            self._changed()
            return
        assert held.lease is not None
        self.truth.stop(held.lease)
        plan = self._plan(held.lease)
        held.state = LeaseState.STOPPING
        delay_ms = grace_ms if plan.on_stop == "ignores" else min(grace_ms, 500)

        def over() -> None:
            held.done = plan.on_stop == "done"
            self._ranks_ended(held)

        self._in(delay_ms, held, over)
        self._changed()

    def _ranks_ended(self, held: Held, *, failure: Failure | None = None) -> None:
        assert held.lease is not None
        self.truth.end(held.lease)
        self._end(held, failure=failure)
        self._changed()

    def _end(self, held: Held, *, failure: Failure | None = None) -> None:
        held.state = LeaseState.ENDED
        held.checkpointing = False
        held.failure = failure
        held.ended_ms = self.loop.now_ms
        if self.agent_up:
            self._go_on(held)
