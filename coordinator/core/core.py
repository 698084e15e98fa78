"""The scheduler core: commands and the time in, decisions out.

Theory of operation. `step` judges one command and applies what follows from it to the state; `schedule`
is one placement pass and is called once per batch, because placing after each of a hundred submits costs
a hundred times as much and decides worse. Whoever drives the core makes the events durable before it
answers or acts; when that fails it throws this object away and loads another.

The core reads no clock, makes no ids, does no I/O and holds no locks.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from coordinator.core import care, check, rolling
from coordinator.core.batch import act_on_all, submit_all
from coordinator.core.change import update
from coordinator.core.child import retry
from coordinator.core.commands import (
    ActOnJobs,
    CancelJob,
    CancelRollingDrain,
    Command,
    DrainNode,
    EnableNode,
    JoinNode,
    PauseJob,
    PreemptJob,
    PutKey,
    PutQueue,
    Recall,
    Recover,
    RemoveNode,
    RemoveQueue,
    Renew,
    ResumeJob,
    RetryJob,
    SetHealth,
    StartRollingDrain,
    SubmitJob,
    SubmitJobs,
    SyncNode,
    Tick,
    UpdateJob,
)
from coordinator.core.decision import Changed, Decision, Rejected, Reply
from coordinator.core.drain import drain, enable
from coordinator.core.hold import pause, preempt, resume
from coordinator.core.invariants import ensure
from coordinator.core.join import join
from coordinator.core.keys import put_key
from coordinator.core.loss import remove
from coordinator.core.mix import look_again
from coordinator.core.queues import put_queue, remove_queue
from coordinator.core.reasons import Reason
from coordinator.core.records import Queue, Record, Request, Ruling
from coordinator.core.requests import recall
from coordinator.core.schedule import schedule, settle_down
from coordinator.core.settings import CoreSettings
from coordinator.core.state import ClusterState
from coordinator.core.submit import cancel, submit
from coordinator.core.sync import sync
from coordinator.core.tick import tick
from coordinator.core.turn import CORE, Turn

NOTHING = Decision()


class Core:
    """Decides everything; does nothing."""

    def __init__(self, settings: CoreSettings | None = None) -> None:
        self.settings = settings or CoreSettings()
        self.state = ClusterState(self.settings)
        self._epoch = 0

    def load(self, records: Iterable[Record]) -> None:
        """Takes over what a store holds, by the same `apply` as live. Order does not matter."""
        requests, rulings = [], []
        # how queues are set comes first: whatever waits is filed anew by each
        for record in sorted(records, key=lambda one: not isinstance(one, Queue)):
            if isinstance(record, Request):
                requests.append(record)
            elif isinstance(record, Ruling):
                rulings.append(record)
            else:
                self._load(record)
        for request in sorted(requests, key=lambda x: (x.expires_at_ms, x.id)):
            self._load(request)
        for ruling in sorted(rulings, key=lambda x: (x.at_ms, x.id)):
            self._load(ruling)

    def step(self, command: Command, now_ms: int) -> Decision:
        """Decides one command. Refusals change nothing. Raises InvariantViolation."""
        turn = Turn(self.state, now_ms, epoch=self._epoch, actor=_actor(command))
        return turn.decision(self._handle(turn, command))

    def schedule(self, now_ms: int) -> Decision:
        """Places waiting jobs, where anything has changed that could let one fit."""
        look_ms = self._next_look_ms()
        if look_ms is None or look_ms > now_ms:
            return NOTHING
        look_again(self.state)
        turn = Turn(self.state, now_ms, epoch=self._epoch)
        rolling.roll(turn)
        schedule(turn, self.settings)
        return turn.decision()

    def follow(self) -> None:
        """Takes all that waits to have been looked at: by another core, whose facts this one follows."""
        settle_down(self.state)

    def next_deadline_ms(self) -> int | None:
        """When Tick is due; 0 for at once, because a placement pass was cut short."""
        due_ms, look_ms = self.state.deadlines.next_ms(), self._next_look_ms()
        if due_ms is None or look_ms is None:
            return look_ms if due_ms is None else due_ms
        return min(due_ms, look_ms)

    def check_invariants(self) -> None:
        """Checks everything that must hold. Raises InvariantViolation."""
        check.check_invariants(self.state)

    def digest(self) -> str:
        """Of the durable state; stable across processes."""
        return self.state.digest()

    def _next_look_ms(self) -> int | None:
        """When there may be something to place; 0 is at once, None for not as things are."""
        if self.state.doubt.restored:
            return None
        queue = self.state.queue
        return 0 if queue.needs_look() or self.state.rolls.touched else self.state.next_change_ms()

    def _load(self, record: Record) -> None:
        self.state.apply(Changed(record=record, cause=Reason.ACCEPTED, actor=CORE, at_ms=0))

    def _handle(self, turn: Turn, command: Command) -> Reply | Rejected:
        match command:
            case SyncNode():
                return sync(turn, command, settings=self.settings)
            case SubmitJob():
                return submit(turn, command, settings=self.settings)
            case CancelJob():
                return cancel(turn, command, settings=self.settings)
            case SubmitJobs():
                return submit_all(turn, command, settings=self.settings)
            case PauseJob():
                return pause(turn, command, settings=self.settings)
            case ResumeJob():
                return resume(turn, command, settings=self.settings)
            case RetryJob():
                return retry(turn, command, settings=self.settings)
            case ActOnJobs():
                handle = partial(self._handle, turn)
                return act_on_all(turn, command, handle=handle, settings=self.settings)
            case UpdateJob():
                return update(turn, command, settings=self.settings)
            case PreemptJob():
                return preempt(turn, command, settings=self.settings)
            case DrainNode():
                return drain(turn, command, settings=self.settings)
            case EnableNode():
                return enable(turn, command, settings=self.settings)
            case StartRollingDrain():
                return rolling.start(turn, command, settings=self.settings)
            case CancelRollingDrain():
                return rolling.cancel(turn, command, settings=self.settings)
            case SetHealth():
                return care.set_health(turn, command, settings=self.settings)
            case RemoveNode():
                return remove(turn, command, settings=self.settings)
            case JoinNode():
                return join(turn, command, settings=self.settings)
            case PutKey():
                return put_key(turn, command, settings=self.settings)
            case PutQueue():
                return put_queue(turn, command, settings=self.settings)
            case RemoveQueue():
                return remove_queue(turn, command, settings=self.settings)
            case Recall():
                return recall(self.state, command.caller) or Reply()
            case Tick():
                tick(turn, self.settings)
                return Reply()
            case Renew():
                return self._renew(turn)
            case Recover():
                return self._recover(turn, command)

    def _recover(self, turn: Turn, command: Recover) -> Reply:
        ensure(command.epoch > self._epoch, "epochs rise", command.epoch)
        self._epoch = command.epoch
        return self._renew(turn)

    def _renew(self, turn: Turn) -> Reply:
        for node_id in sorted(self.state.nodes):
            heard = self.state.heard.get(node_id)
            incarnation = self.state.nodes[node_id].incarnation
            sequence = heard.sequence if heard else 0
            turn.hear(node_id, incarnation, sequence=sequence, renewed=True)
        return Reply()


def _actor(command: Command) -> str:
    match command:
        case SyncNode() | JoinNode():
            return command.node_id
        case Tick() | Renew() | Recover():
            return CORE
        case _:
            return command.caller.user_id


__all__ = ["Core", "CoreSettings"]
