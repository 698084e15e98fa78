"""Many jobs accepted, or acted upon, in one decision, so that one commit makes all of it durable."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.core.commands import ActOnJobs, Command, SubmitJob, SubmitJobs
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Outcome
from coordinator.core.replacing import replace
from coordinator.core.requests import recall, remember
from coordinator.core.settings import CoreSettings
from coordinator.core.submit import Together, accept, judge_submit, keep, submit
from coordinator.core.turn import Turn


def submit_all(turn: Turn, command: SubmitJobs, *, settings: CoreSettings) -> Reply | Rejected:
    """Accepts each job that can be; with `atomic` none, where one of them cannot."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    outcomes = _refused_together(turn, command, settings=settings) if command.atomic else None
    if outcomes is None:
        together = Together()
        outcomes = tuple(
            _submit(turn, one, settings=settings, together=together) for one in command.jobs
        )
        keep(turn, together)
    return remember(turn, command.caller, reply=Reply(outcomes=outcomes), settings=settings)


def act_on_all(
    turn: Turn,
    command: ActOnJobs,
    *,
    handle: Callable[[Command], Reply | Rejected],
    settings: CoreSettings,
) -> Reply | Rejected:
    """Does to each job what can be done; what is refused of one changes nothing of the others."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    outcomes = tuple(_acted(turn, act.job_id, reply=handle(act)) for act in command.acts)
    return remember(turn, command.caller, reply=Reply(outcomes=outcomes), settings=settings)


def _acted(turn: Turn, job_id: str, *, reply: Reply | Rejected) -> Outcome:
    """What became of a job; where nothing was done its status is as it was."""
    outcome = replace(_outcome(reply), job_id=job_id, field="")
    if isinstance(reply, Rejected) and reply.reason is not Reason.JOB_NOT_FOUND:
        outcome = replace(outcome, status=turn.state.jobs[job_id].status.value)
    return outcome


def _submit(
    turn: Turn, command: SubmitJob, *, settings: CoreSettings, together: Together
) -> Outcome:
    """One of many; a request of its own is remembered by itself."""
    if command.caller.request_id:
        return _outcome(submit(turn, command, settings=settings))
    accepted = accept(turn, command, settings=settings, together=together)
    if isinstance(accepted, Rejected):
        return _outcome(accepted)
    first = together.accepted.get(accepted.status)
    if first is None:
        first = Outcome(job_id=accepted.job_id, status=accepted.status.value)
        together.accepted[accepted.status] = first
        return first
    return replace(first, job_id=accepted.job_id)


def _refused_together(
    turn: Turn, command: SubmitJobs, *, settings: CoreSettings
) -> tuple[Outcome, ...] | None:
    """Why nothing of the batch is accepted; None where every job of it can be."""
    together = Together()
    live = len(turn.state.jobs)
    judged = [
        judge_submit(turn.state, one, live_jobs=live + index, settings=settings, together=together)
        for index, one in enumerate(command.jobs)
    ]
    if not any(isinstance(one, Rejected) for one in judged):
        return None
    others = Rejected(
        reason=Reason.BATCH_REFUSED, message="another job of the atomic batch was refused"
    )
    return tuple(_outcome(one if isinstance(one, Rejected) else others) for one in judged)


def _outcome(reply: Reply | Rejected) -> Outcome:
    if isinstance(reply, Rejected):
        return Outcome(reason=reply.reason.value, message=reply.message, field=reply.field)
    assert reply.job is not None
    return Outcome(job_id=reply.job.job_id, status=reply.job.status.value)
