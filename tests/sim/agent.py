"""An agent: the real pure core, and around it a shell that keeps and reports as the real one does.

The shell writes a lease's folder down before its ranks start, reports a lease from the moment that it
is known, holds an end back until it is known what was left behind, and takes over only the answer to
its newest call. Everything that decides is `node_agent.core`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import cast

from coordinator.core.commands import ObservedLease, SyncNode
from coordinator.core.records import WHOLE, Device, Failure, LeaseState, Offer, Pairs
from node_agent.core.leases import Category, Lease, Rank, State
from node_agent.core.leases import Fault as LeaseFault
from node_agent.core.reconcile import Action, Conclude, Forget, Start, Stop, reconcile
from node_agent.ranks import SpoolProtocol
from node_agent.spool import Spool
from node_agent.spool.pusher import PushCall
from tests.sim import machine, wire
from tests.sim.care import Reported, Wear
from tests.sim.changes import SimChanges
from tests.sim.clock import SECOND, LocalClock, Loop
from tests.sim.hangs import LOOK_MS, Look
from tests.sim.images import BYTES, NOTHING, Brought, Shelf, resolved
from tests.sim.machine import Folder, Key, Machine
from tests.sim.messages import Answer, Call, Order
from tests.sim.output import Output
from tests.sim.plans import Plan
from tests.sim.silence import Silence, SilentSpool
from tests.sim.tasks import Burial
from tests.sim.truth import Truth
from tests.sim.wire import Wire

HOLD_MS = 5 * SECOND
DEADLINE_MS = 10 * SECOND
BACKOFF_MS = 1 * SECOND
NEWS_MS, IDLE_MS = 3, 50


@dataclass(slots=True)
class Held:
    """One lease in the agent's memory."""

    order: Order
    folder: Folder | None = None  # where its ranks are to be, ordered or not
    ordered: bool = False
    image: Brought = NOTHING
    is_prepared: bool = False
    fault: LeaseFault | None = None
    stop_by_ms: int | None = None
    told_ended: set[int] = field(default_factory=set)  # ranks of whose end the spool was told
    is_ending: bool = False  # it is being found out what it left behind
    settled: bool = False
    farewell: ObservedLease | None = None
    reported: tuple[object, ObservedLease] | None = None  # of what was known, what came of it
    look: Look = field(default_factory=Look)


class SimNode:
    """One machine, and an agent on it that comes and goes."""

    def __init__(
        self,
        node_id: str,
        devices: tuple[str, int],
        *,
        loop: Loop,
        rng: Random,
        clock: LocalClock,
        truth: Truth,
        plan_of: Callable[[str], Plan],
        call: Callable[[SimNode, Call], None],
        output: Output,
        budget_bytes: int,
        connect: Callable[[str], Wire],
        burial: Burial,
        suffix: str = "",
        labels: Pairs = (),
        shelf: Shelf | None = None,
    ) -> None:
        self.node_id = node_id
        self.labels = labels
        self.shelf = shelf
        self.clock = clock
        self._offset_ms = clock.offset_ms
        self.machine = Machine(loop, rng, clock=clock, truth=truth, plan_of=plan_of, output=output)
        self.machine.on_change = self._changed
        output.changed = self._printed
        self.up = False
        self.superseded = False
        self.is_gone = False  # switched off, and somebody is about to remove the node
        self.bad_devices: set[int] = set()
        self.device_ids = [f"{node_id}{suffix}-{index}" for index in range(devices[1])]
        self.wear = Wear(Random(f"{rng.getstate()[1][0]}/wear"), self.device_ids)
        self._kind = devices[0]
        self._loop = loop
        self._rng = rng
        self._truth = truth
        self._plan_of = plan_of
        self._call = call
        self._budget_bytes = budget_bytes
        self._connect = connect
        self._burial = burial
        self._changes = SimChanges(rng)
        self._is_silent = isinstance(output, Silence)
        self._spool = self._new_spool()
        self._frozen = False
        self._missed: list[Callable[[], None]] = []  # what came while it was frozen
        self._life = 0
        self._starts = 0
        self._held: dict[Key, Held] = {}
        self._expected: tuple[tuple[str, str], ...] = ()
        self._orders: dict[Key, Order] | None = None
        self._step_due = False
        self._generation = 0
        self._sequence = 0
        self._calls = 0
        self._sent_ms = self._answered_ms = 0.0
        self._hold_ms = HOLD_MS
        self._watches = False
        self._leader_epoch = 0
        self._seen: int | None = None
        self._canary: tuple[int, tuple[str, ...]] | None = None
        self._told: tuple[ObservedLease, ...] = ()
        self._news: tuple[ObservedLease, ...] = ()

    # life and death

    def start_agent(self) -> None:
        """The agent's program starts, and finds again what an earlier one ordered."""
        if self.up or not self.machine.power or self.is_gone:
            return
        self.up = True
        self._life += 1
        self._starts += 1
        if not self.machine.generation:
            self.set_clock_right()
        now_s = int(self.clock.wall_ms()) // SECOND
        self._generation = max(self.machine.generation + 1, now_s)
        self.machine.generation = self._generation
        self._sequence = self._leader_epoch = 0
        self._seen = self._orders = None
        self._step_due = False
        self._canary = None
        self._expected = ()
        self.wear.restart()
        self._changes = SimChanges(self._rng)
        self._spool = self._new_spool()
        self._held = {
            folder.key: Held(Order.of(folder.lease, folder.told_at_commit), folder, ordered=True)
            for folder in self.machine.folders.values()
        }
        for folder in self.machine.folders.values():
            self._watch(folder)
        if not self._is_silent:
            tasks = self._burial.tasks(partial(self._later_in, self._life), self.clock)
            tasks.start(self._spool.run())
        self._step()
        self._sync()

    def kill_agent(self) -> None:
        """The agent's program dies; the ranks do not notice."""
        if not self.up:
            return
        for held in self._held.values():
            if held.folder is not None and not held.ordered:  # it was only in memory
                lease = held.folder.lease
                self._truth.asked.lost.add((lease.job_id, lease.attempt))
        self.up = False
        self._frozen = False
        self._missed.clear()
        self._life += 1

    def freeze(self) -> None:
        """The agent's program stands still, with all that it remembers."""
        self._frozen = self.up

    def thaw(self) -> None:
        """It goes on; what had come in the meantime is there all at once."""
        self._frozen = False
        missed, self._missed = self._missed, []
        for act in missed:
            self._loop.after(0, act)

    def lose_power(self, *, wipe: bool) -> None:
        """Everything on the machine stops; with `wipe` it forgets everything as well."""
        self.kill_agent()
        self.machine.lose_power(wipe=wipe)
        if wipe and self.shelf is not None:
            self.shelf.clear()

    def reinstall(self) -> None:
        """The agent's service is removed with all that belongs to it, ranks and state."""
        self.lose_power(wipe=True)
        self.machine.power = True

    def set_clock_right(self) -> None:
        """Whoever installs a machine sets its clock: its generation can come from nowhere else."""
        self.clock.offset_ms = self._offset_ms

    @property
    def is_ahead(self) -> bool:
        """Whether the node has been heard with a number of a time that has not come yet.

        Were its disk lost now, nothing that it says would be newer: docs/reliability.md tells of it.
        """
        right_ms = self.clock.wall_ms() - self.clock.offset_ms + self._offset_ms
        return self.machine.generation * SECOND > right_ms

    def power_on(self) -> None:
        """The machine boots; its agent starts a little later."""
        if self.is_gone:
            return
        self.machine.power = True
        self._loop.after(self._rng.randint(100, 3000), self.start_agent)

    def attempts(self) -> list[tuple[str, int]]:
        """The (job, attempt) of every lease that the agent knows in full."""
        folders = [held.folder for held in self._held.values() if held.folder is not None]
        return [(folder.lease.job_id, folder.lease.attempt) for folder in folders]

    def _later(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Does something, unless the agent dies before; a frozen one does it once it goes on."""
        self._loop.after(delay_ms, partial(self._due, self._life, act))

    def _later_in(self, life: int, delay_ms: int, act: Callable[[], None]) -> None:
        self._loop.after(delay_ms, partial(self._due, life, act))

    def _due(self, life: int, act: Callable[[], None]) -> None:
        if not self.up or self._life != life:
            return
        if self._frozen:
            self._missed.append(partial(self._due, life, act))
        else:
            act()

    # the keeper

    def _changed(self) -> None:
        if self.up and not self._step_due:
            self._step_due = True
            self._later(0, self._step)

    def _step(self) -> None:
        self._step_due = False
        observed = {key: self._observe(key) for key in self._held}
        for key, lease in observed.items():
            self._follow(key, lease)
        desired = None
        if self._orders is not None:
            desired = [order.desired() for order in self._orders.values()]
        actions = reconcile(desired, list(observed.values()), now_ms=int(self.clock.wall_ms()))
        for action in actions:
            self._act(action, (action.lease_id, action.epoch))
        self._news = self._picture({} if actions else observed)
        if self._told != self._news:
            self._later(NEWS_MS, self._sync_if_changed)

    def _act(self, action: Action, key: Key) -> None:
        self._truth.played[type(action)] += 1
        match action:
            case Start():
                self._start(key)
            case Conclude(fault=fault):
                assert self._orders is not None
                self._held[key] = Held(self._orders[key], fault=fault)
                self._changed()
            case Stop(grace_ms=grace_ms):
                held = self._held[key]
                held.stop_by_ms = int(self.clock.wall_ms()) + grace_ms
                if held.ordered and held.folder is not None:
                    self.machine.stop(held.folder, grace_ms)
                elif held.folder is not None and held.image.after_ms:
                    self._later(1, partial(self._prepared, held, held.folder))
            case Forget():
                self._held[key].farewell = self._report(key)
                self._later(self._rng.randint(1, 50), lambda: self._forget(key))

    def _start(self, key: Key) -> None:
        assert self._orders is not None
        order = self._orders[key]
        assert order.spec is not None
        folder = machine.new_folder(order.spec, order.told_at_commit)
        held = self._held[key] = Held(order, folder)
        delay_ms = self._rng.randint(1, 2000)
        if self.shelf is not None and self._plan_of(order.spec.job_id).image:
            held.image = self.shelf.bring(order.image, engine=self.machine.has_engine)
        self._later(delay_ms + held.image.after_ms, lambda: self._prepared(held, folder))

    def _prepared(self, held: Held, folder: Folder) -> None:
        if held.is_prepared:
            return  # it was stopped while it waited for its image
        held.is_prepared = True
        lease = folder.lease
        plan = self._plan_of(lease.job_id)
        held.fault = self._found(held, folder)
        if not set(lease.device_ids) <= set(self.device_ids):
            self._truth.asked.lost.add((lease.job_id, lease.attempt))
            held.fault = LeaseFault(Category.NODE_LOST, "the node has no such device any more")
        elif lease.attempt <= plan.fails and plan.exit_code is None:
            self._truth.asked.failed.add((lease.job_id, lease.attempt))
            held.fault = held.fault or LeaseFault(Category.CONFIG, "it cannot be started")
        if held.fault is None and held.stop_by_ms is None:
            held.ordered = True
            for number in folder.ranks:
                self.machine.output.make(self.machine.files(folder, number))
            self._watch(folder)
            self.machine.start(folder)
        else:
            held.folder = None  # nothing was started, and nothing will be
        self._changed()

    def _found(self, held: Held, folder: Folder) -> LeaseFault | None:
        """Writes down what the lease's image is; why it is not to be had, where somebody still wants it."""
        attempt = folder.lease.job_id, folder.lease.attempt
        if held.stop_by_ms is not None:
            return None
        if held.image.digest:
            resolved(self._truth, folder, held.image.digest)
        elif held.image.fault is not None:
            if held.image.fault.category is Category.NODE_LOST:
                self._truth.asked.lost.add(attempt)
            else:
                self._truth.asked.failed.add(attempt)
                self._truth.asked.unbrought.add(folder.key)
        return held.image.fault

    def _bring_ahead(self, expected: tuple[tuple[str, str], ...]) -> None:
        """Has images there of jobs that are to come; what fails is left to their leases."""
        new = [image for job_id, image in expected if (job_id, image) not in self._expected]
        self._expected = expected
        if self.shelf is not None and self.machine.power:
            for image in new:
                self.shelf.bring(image, engine=self.machine.has_engine)

    def _forget(self, key: Key) -> None:
        self._spool.forget(key[0])
        self.machine.output.remove(key)
        self.machine.folders.pop(key, None)
        del self._held[key]
        self._changed()

    def _follow(self, key: Key, lease: Lease) -> None:
        """Tells the spool which ranks write no more; once all have ended, finds out what they left."""
        held = self._held[key]
        if held.farewell is not None:
            return
        if held.folder is not None and held.ordered:
            for number, rank in held.folder.ranks.items():
                if rank.state is State.ENDED and number not in held.told_ended:
                    held.told_ended.add(number)
                    self._spool.ended(key[0], number)
        if held.is_ending or lease.state is not State.ENDED:
            return
        if held.folder is None:
            held.is_ending = held.settled = True
        elif self._spool.findings(key[0]).settled:
            held.is_ending = True
            self._later(self._rng.randint(1, 300), lambda: self._settle(held))

    def _settle(self, held: Held) -> None:
        held.settled = True
        self._changed()

    # what the ranks print

    def _new_spool(self) -> SpoolProtocol:
        spool = self._silent_spool() if self._is_silent else self._real_spool()
        spool.on_change = lambda lease_id: self._changed()
        return spool

    def _silent_spool(self) -> SpoolProtocol:
        return SilentSpool(self._later, self._rng)

    def _real_spool(self) -> SpoolProtocol:
        return Spool(
            lambda: cast(PushCall, wire.PushCall(self._connect(self.node_id))),
            node_id=self.node_id,
            budget_bytes=self._budget_bytes,
            boot=str(self.machine.boot),
            changes=self._changes,
            now_ms=lambda: int(self.clock.wall_ms()),
        )

    def _watch(self, folder: Folder) -> None:
        for number in folder.ranks:
            self._spool.watch(self.machine.files(folder, number))
        if self._plan_of(folder.lease.job_id).watched and 0 in folder.ranks:
            self._watches = True
            self._later(LOOK_MS, partial(self._look, folder))

    def _look(self, folder: Folder) -> None:
        """Looks whether a training comes on, again and again until it has ended."""
        held = self._held.get(folder.key)
        if held is None or held.folder is not folder or folder.ranks[0].state is State.ENDED:
            return
        runs = folder.ranks[0].state is State.RUNNING
        reports, now_ms = self.machine.reports(folder), int(self.clock.wall_ms())
        if runs and held.look.look(reports, now_ms):
            self._changed()
        self._later(LOOK_MS, partial(self._look, folder))

    def _printed(self, path: Path) -> None:
        if self.up:
            self._changes.announce(path)

    def _observe(self, key: Key) -> Lease:
        held = self._held[key]
        ranks: tuple[Rank, ...] = ()
        if held.folder is not None:
            known = held.folder.ranks
            ranks = tuple(known[number] if held.ordered else Rank(number) for number in known)
        return Lease(
            held.order.lease_id,
            held.order.epoch,
            ranks=ranks,
            fault=held.fault,
            stop_by_ms=held.stop_by_ms,
            drained=held.folder is None or self._spool.is_drained(key[0]),
            leaving=held.farewell is not None,
            device_ids=held.folder.lease.device_ids if held.folder is not None else (),
            thousandths=held.folder.lease.thousandths if held.folder is not None else WHOLE,
        )

    # the session

    def take(self, answer: Answer) -> None:
        """An answer has come; it counts if it belongs to the newest call."""
        self._later(0, lambda: self._take(answer))

    def _take(self, answer: Answer) -> None:
        if answer.call != self._calls:
            return
        if answer.superseded:
            self._truth.asked.lost.update(self.attempts())
            self._orders = {}
            self._step()  # what nobody knows any more is stopped
            self.kill_agent()
            self.superseded = True
            return
        if answer.leader_epoch < self._leader_epoch:
            self._later(self._rng.randint(0, BACKOFF_MS), self._sync)
            return
        self._leader_epoch = answer.leader_epoch
        self.machine.acknowledged_ms = self._answered_ms = self._sent_ms
        news = answer.revision != self._seen
        self._seen = answer.revision
        self._orders = {(order.lease_id, order.epoch): order for order in answer.leases}
        self._step()
        self._save()
        self._bring_ahead(answer.expected)
        self._try(answer.canary)
        self._later(NEWS_MS if news else IDLE_MS, self._sync_if(answer.call))

    def _save(self) -> None:
        """Asks for the checkpoints that are desired."""
        for key, order in (self._orders or {}).items():
            held = self._held.get(key)
            if order.save and held is not None and held.ordered and held.folder is not None:
                self.machine.save(held.folder, order.save)

    def _try(self, canary: tuple[int, tuple[str, ...]] | None) -> None:
        """Runs the canary that is desired, once; its end is told for as long as it is."""
        if canary == self._canary:
            return
        self._canary, self.wear.done = canary, None
        if canary is not None:
            delay_ms = len(self.device_ids) * SECOND
            self._later(delay_ms, lambda: self._tried(canary))

    def _tried(self, canary: tuple[int, tuple[str, ...]]) -> None:
        if canary == self._canary:
            self.wear.run_canary(*canary)
            self._sync()

    def _sync_if_changed(self) -> None:
        if self._told != self._news and self._hold_ms:
            self._sync()  # else the answer comes at once, and the next call tells of it

    def _sync_if(self, number: int) -> Callable[[], None]:
        """The next call, unless there was one since that of this number."""
        return lambda: self._sync() if self._calls == number else None

    def _sync(self) -> None:
        self._calls += 1
        self._sequence += 1
        self._sent_ms = self.clock.elapsed_ms()
        is_due = self._sent_ms - self._answered_ms > 2 * HOLD_MS
        # only where any is watched: all other worlds stay those in which planted bugs were found
        self._hold_ms = 0 if is_due and self._watches else HOLD_MS
        number = self._calls
        self._told = self._news = self._picture({})
        report = SyncNode(
            node_id=self.node_id,
            incarnation=f"{self.device_ids[0]}-{self._starts}",
            generation=self._generation,
            sequence=self._sequence,
            offer=_offer(
                self._kind,
                self.wear.faults(),
                bad=frozenset(self.bad_devices),
                labels=self.labels,
                at_hand=self.shelf.at_hand if self.shelf is not None else ((), 0),
            ),
            leases=self._told,
            canary=self.wear.done,
        )
        self._call(self, Call(number, report, self._seen, self._hold_ms))

        def give_up() -> None:
            if self._calls == number:
                self._seen = None
                self._later(self._rng.randint(0, BACKOFF_MS), self._sync_if(number))

        self._later(self.clock.world_ms(DEADLINE_MS), give_up)

    def _picture(self, observed: Mapping[Key, Lease]) -> tuple[ObservedLease, ...]:
        """What is reported of every lease; `observed` is what is known of some, and has not changed."""
        return tuple(self._report(key, observed.get(key)) for key in sorted(self._held))

    def _report(self, key: Key, known: Lease | None = None) -> ObservedLease:
        held = self._held[key]
        if held.farewell is not None:
            return held.farewell
        facts = _facts(held)
        if held.reported is None or held.reported[0] != facts:
            held.reported = facts, self._report_anew(held, known or self._observe(key))
        return held.reported[1]

    def _report_anew(self, held: Held, lease: Lease) -> ObservedLease:
        folder = held.folder
        state = lease.state
        if state is State.ENDED and not held.settled:
            state = State.RUNNING if held.stop_by_ms is None else State.STOPPING
        fault = lease.first_fault if state is State.ENDED else None
        return ObservedLease(
            lease_id=lease.lease_id,
            epoch=lease.epoch,
            state=LeaseState(state.value),
            done=folder is not None and folder.done,
            stopped=not lease.ranks or any(rank.stopped for rank in lease.ranks),
            failure=_failure(fault) if fault is not None else None,
            checkpoints=tuple(folder.checkpoints) if folder is not None else (),
            checkpointing=folder is not None and folder.checkpointing,
            saved=folder.saved if folder is not None else 0,
            image_digest=folder.image if folder is not None else "",
            silent_since_ms=held.look.silent_since_ms,
            started_at_ms=max([rank.started_at_ms or 0 for rank in lease.ranks], default=0),
            ended_at_ms=max([rank.ended_at_ms or 0 for rank in lease.ranks], default=0),
        )


def _facts(held: Held) -> object:
    """All of which a report is made."""
    folder = held.folder
    own = held.fault, held.stop_by_ms, held.settled, held.ordered, held.look.silent_since_ms
    if folder is None:
        return own
    has = folder.done, folder.checkpointing, folder.saved, folder.image, *folder.checkpoints
    return *own, *has, *folder.ranks.values()


def _failure(fault: LeaseFault) -> Failure:
    return Failure(
        category=fault.category.value,
        message=fault.message,
        exit_code=fault.exit_code,
        signal=fault.signal,
        rank=fault.rank,
    )


@cache
def _offer(
    kind: str,
    known: tuple[Reported, ...],
    *,
    bad: frozenset[int],
    labels: Pairs,
    at_hand: tuple[tuple[str, ...], int],
) -> Offer:
    devices = [
        Device(device_id=id, index=index, type=kind, healthy=index not in bad, faults=faults)
        for index, (id, faults) in enumerate(known)
    ]
    holds, bytes_per_s = at_hand
    return Offer(
        devices=tuple(devices),
        cpu_count=64,
        labels=labels,
        holds=holds,
        holds_bytes=(BYTES,) * len(holds),
        fetch_bytes_per_s=bytes_per_s,
    )
