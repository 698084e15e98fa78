"""Stops that wait for a checkpoint: asked for, proven, or given up when the time is over.

Theory of operation. Whoever wants a training to leave its devices in good order (a pause, a drain, a
preemption, the time limit) asks for a checkpoint first: every lease of the attempt gets the next `save`
number, the job is CHECKPOINTING, and the attempt carries the Ask, which says what stop follows. The
agent of node rank 0 answers with `saved` once a checkpoint that was announced after the ask is proven;
then, and not before, the leases are stopped. At the Ask's deadline its `on_timeout` decides.

Not every training hears an ask. A preemption waits beyond the grace for a checkpoint that comes by itself,
if by what is known of its cadence it is near (`cadence.py`).

An attempt carries one Ask. A pause gives way to a stop that has to come (its `hold` stays, so the job
becomes PAUSED all the same); a stop that has to come does not give way. A training that has not begun
has nothing to save: it is stopped at once.

A move of the scheduler's (`moves.py`) is for attempts that save: where no checkpoint is proven in time the
attempt stays, and for whom it was to make room waits as before. Like a pause it gives way.

A drain that moves jobs is patient: its Ask has no deadline, gives way to every other, and comes again
when that one is taken back. A drain that is taken back, or is by force no more, takes its Ask back with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.attempts import stop
from coordinator.core.cadence import SAVES, awaited_ms
from coordinator.core.invariants import ensure
from coordinator.core.reasons import Reason
from coordinator.core.records import Ask, Drain, Job, JobStatus, OnTimeout, Share, StopCause
from coordinator.core.replacing import replace
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn

PATIENT = Ask(cause=StopCause.DRAINED, due_ms=0, on_timeout=OnTimeout.KEEP_RUNNING)


def save_and_stop(
    turn: Turn,
    job: Job,
    *,
    cause: StopCause,
    timeout_ms: int = 0,
    on_timeout: OnTimeout = OnTimeout.STOP,
) -> Job:
    """Stops the attempt of a running job once a checkpoint is proven. `timeout_ms` 0 is its grace."""
    attempt = job.attempt
    ensure(attempt is not None, "an attempt is stopped", job.job_id)
    assert attempt is not None
    if attempt.stop is not None:
        return job
    wait_ms = timeout_ms or job.policy.grace_ms
    due_ms = turn.now_ms + wait_ms
    if cause is StopCause.PREEMPTED:
        due_ms = max(due_ms, awaited_ms(job, now_ms=turn.now_ms, settings=turn.state.settings))
    if job.status not in SAVES or (due_ms == turn.now_ms and on_timeout is OnTimeout.STOP):
        return stop(turn, job, cause=cause)
    return _ask(turn, job, new=Ask(cause=cause, due_ms=due_ms, on_timeout=on_timeout))


def leave(turn: Turn, job: Job) -> Job:
    """Stops the attempt once a checkpoint is proven, however long that takes."""
    assert job.attempt is not None
    if job.attempt.stop is not None:
        return job
    if job.status not in SAVES:
        return stop(turn, job, cause=StopCause.DRAINED)
    return _ask(turn, job, new=PATIENT)


def stay(turn: Turn, job: Job) -> Job:
    """Takes back that a job shall leave, unless another one of its nodes wants it to; who is to be held is
    stopped all the same. Where it need not leave by force any more it may take its time."""
    attempt = job.attempt
    ask = attempt.ask if attempt else None
    if attempt is None or ask is None or ask.cause is not StopCause.DRAINED or attempt.hold:
        return job
    if is_to_be_stopped(turn.state, job):
        return job
    if not is_to_leave(turn.state, job):
        return go_on(turn, job, cause=Reason.DRAIN_WITHDRAWN, message="")
    if ask == PATIENT:
        return job
    withdrawn = Reason.DRAIN_WITHDRAWN
    attempt = replace(attempt, ask=PATIENT)
    return turn.edit(job, withdrawn, attempt=attempt, message=_told(turn, job, ask=PATIENT))


def let_stay(turn: Turn, job: Job) -> None:
    """Lets go on who was asked to make room for a job that is not to have it any more; `job` is as it was
    then. Who is stopped already, is to be held or is on a node that is emptied by force is stopped, and who
    is moved goes on elsewhere all the same."""
    shares = job.room or (job.claim.shares if job.claim else ())
    for node_id in dict.fromkeys(share.node_id for share in shares):
        for lease in turn.state.leases_on(node_id):
            one = turn.state.jobs[lease.job_id]
            if not _is_asked_for(one, job.job_id) or is_to_be_stopped(turn.state, one):
                continue
            before_ms = one.preempted_at_ms[:-1]
            one = go_on(
                turn, one, cause=Reason.PREEMPTION_WITHDRAWN, message="", preempted_at_ms=before_ms
            )
            if is_to_leave(turn.state, one):
                leave(turn, one)


def _is_asked_for(job: Job, rival_id: str) -> bool:
    """Whether it is asked for a checkpoint, and nothing else, so that another job has its devices."""
    attempt = job.attempt
    ask = attempt.ask if attempt and attempt.makes_room_for == rival_id else None
    if attempt is None or ask is None or attempt.hold or _is_move(ask):
        return False
    return ask.cause is StopCause.PREEMPTED


def is_to_leave(state: ClusterState, job: Job) -> bool:
    """Whether a node of the job's attempt is drained so that its jobs leave."""
    return any(drain.move for drain in _drains(state, job))


def is_to_be_stopped(state: ClusterState, job: Job) -> bool:
    """Whether a node of the job's attempt is drained by force."""
    return any(drain.force for drain in _drains(state, job))


def _drains(state: ClusterState, job: Job) -> Iterator[Drain]:
    for share in job.attempt.shares if job.attempt else ():
        node = state.nodes.get(share.node_id)
        if node is not None and node.drain is not None:
            yield node.drain


def _ask(turn: Turn, job: Job, *, new: Ask) -> Job:
    attempt = job.attempt
    assert attempt is not None
    ask = _merged(attempt.ask, new)
    if ask == attempt.ask:
        return job
    if attempt.ask is None:
        _ask_leases(turn, job)
    changes: dict[str, object] = {
        "attempt": replace(attempt, ask=ask),
        "message": _told(turn, job, ask=ask),
    }
    if job.status is JobStatus.TRAINING:
        return turn.move(job, Reason.CHECKPOINT_ASKED, **changes)
    asked = Reason.CHECKPOINT_ASKED
    return turn.edit(job, asked, reason=asked.value, **changes)


def proven(turn: Turn, job: Job) -> Job:
    """Looks whether the checkpoint that was asked for is proven, and if so stops the attempt."""
    if job.attempt is None or job.attempt.ask is None:
        return job
    first = turn.state.attempt_leases(job)[0]
    if first.saved < first.save:
        return job
    return stop(turn, job, cause=job.attempt.ask.cause)


def expire(turn: Turn, job: Job) -> Job:
    """The time for the checkpoint is over."""
    assert job.attempt is not None
    ask = job.attempt.ask
    assert ask is not None
    goes_on = ask.on_timeout is OnTimeout.KEEP_RUNNING or (
        ask.on_timeout is OnTimeout.USE_LATEST and not job.checkpoints
    )
    if not goes_on:
        return stop(turn, job, cause=ask.cause)
    cause, what = Reason.PAUSE_GIVEN_UP, "the pause"
    if _is_move(ask):
        cause, what = Reason.MOVE_GIVEN_UP, "moving it"
    text = f"{what} was given up: no checkpoint was proven in time"
    job = go_on(turn, job, cause=cause, message=text)
    return leave(turn, job) if is_to_leave(turn.state, job) else job


def go_on(turn: Turn, job: Job, *, cause: Reason, message: str, **changes: object) -> Job:
    """Takes an Ask back: the attempt runs as if nobody had asked, and for whom it was to make room waits as
    before."""
    assert job.attempt is not None
    rival = turn.state.jobs.get(job.attempt.makes_room_for)
    if rival is not None and any(_holds(job, share) for share in rival.room):
        turn.edit(rival, Reason.ROOM_LOST, room=(), message="")
    attempt = replace(job.attempt, ask=None, hold=False, makes_room_for="")
    return turn.move(job, cause, attempt=attempt, message=message, **changes)


def _holds(job: Job, share: Share) -> bool:
    shares = job.attempt.shares if job.attempt else ()
    return any(
        one.node_id == share.node_id and not set(one.device_ids).isdisjoint(share.device_ids)
        for one in shares
    )


def _is_move(ask: Ask) -> bool:
    return ask.cause is StopCause.PREEMPTED and ask.on_timeout is OnTimeout.KEEP_RUNNING


def _merged(old: Ask | None, new: Ask) -> Ask:
    if old is None or old == PATIENT:
        return new
    if new == PATIENT:
        return old
    if old.cause is StopCause.PAUSED or _is_move(old):
        if new.cause is StopCause.PAUSED:
            return new
        return replace(new, due_ms=min(old.due_ms, new.due_ms))
    if new.cause is StopCause.PAUSED:
        return old
    return replace(old, due_ms=min(old.due_ms, new.due_ms))


def _told(turn: Turn, job: Job, *, ask: Ask) -> str:
    left_ms = ask.due_ms - turn.now_ms
    is_near = ask.cause is StopCause.PREEMPTED and left_ms > job.policy.grace_ms
    near = f", and for up to {left_ms // 1000} s one that is near" if is_near else ""
    where = ", and it goes on elsewhere at once" if _is_move(ask) else ""
    return f"a checkpoint is awaited{near}; then its ranks are stopped: {ask.cause}{where}"


def _ask_leases(turn: Turn, job: Job) -> None:
    for lease in turn.state.attempt_leases(job):  # also one that has ended: it will not answer
        turn.edit_lease(lease, Reason.CHECKPOINT_ASKED, save=lease.save + 1)
        turn.wake(lease.node_id)
