"""Accepting jobs, and cancelling them."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.core.attempts import fail_dependency, remember_run, settle, stop_leases
from coordinator.core.commands import CancelJob, SubmitJob
from coordinator.core.decision import Rejected, Reply
from coordinator.core.estimate import plain
from coordinator.core.invariants import ensure
from coordinator.core.mix import learn
from coordinator.core.placement import misfit
from coordinator.core.queues import closed, quota_first
from coordinator.core.reasons import Reason
from coordinator.core.records import WHOLE, Demand, Documents, Job, JobStatus, Outcome, StopCause
from coordinator.core.replacing import replace
from coordinator.core.requests import asked, recall, remember, wrong_status
from coordinator.core.saving import let_stay
from coordinator.core.settings import CoreSettings
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn


@dataclass(frozen=True, slots=True)
class Together:
    """What is found out once for the jobs of one command; nothing else is decided meanwhile.

    Attributes:
        fine: queues and demands that go together.
        first: jobs that were accepted, by all that those after them have in common with them.
        accepted: what is answered of the first that is born with a status.
        documents: what was submitted as those that were accepted.
    """

    fine: set[tuple[str, int]] = field(default_factory=set)
    first: dict[tuple[object, ...], Job] = field(default_factory=dict)
    accepted: dict[JobStatus, Outcome] = field(default_factory=dict)
    documents: list[tuple[str, bytes]] = field(default_factory=list)


def submit(turn: Turn, command: SubmitJob, *, settings: CoreSettings) -> Reply | Rejected:
    """Accepts a job: PENDING while it must wait for jobs, a time or a limit, else QUEUED."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    together = Together()
    job = accept(turn, command, settings=settings, together=together)
    if isinstance(job, Rejected):
        return job
    if command.validate_only:
        return Reply(job=job)
    keep(turn, together)
    return remember(turn, command.caller, reply=Reply(job=job), settings=settings)


def accept(
    turn: Turn, command: SubmitJob, *, settings: CoreSettings, together: Together
) -> Job | Rejected:
    """The same, but for what is known of the request, and for what `keep` does."""
    live, common = len(turn.state.jobs), _common(command)
    first = together.first.get(common) if live < settings.max_live_jobs else None
    if first is not None:
        dependencies: dict[str, str] = {}
        job = _born_like(first, command, sequence=turn.state.last_sequence + 1)
    else:
        judged = judge_submit(
            turn.state, command, live_jobs=live, settings=settings, together=together
        )
        if isinstance(judged, Rejected):
            return judged
        dependencies = judged
        job = _born(turn, command, dependencies=dependencies)
        if not dependencies:
            together.first[common] = job
    if command.validate_only:
        return job
    ensure(job.job_id not in turn.state.jobs, "a job id is given once", job.job_id)
    if first is not None:
        turn.put_like(job, Reason.ACCEPTED, first=first)
    else:
        turn.put(job, Reason.ACCEPTED)
    together.documents.append((job.job_id, command.document))
    for needed_id, status in dependencies.items():
        if status in (JobStatus.FAILED, JobStatus.CANCELLED):
            job = fail_dependency(turn, job, needed_id=needed_id, status=status)
            settle(turn)
            break
    return job


def keep(turn: Turn, together: Together) -> None:
    """Keeps what was submitted as the jobs that were accepted, and learns what they ask for."""
    if together.documents:
        turn.keep(Documents(bodies=tuple(together.documents)), Reason.ACCEPTED)
        learn(turn)


def cancel(turn: Turn, command: CancelJob, *, settings: CoreSettings) -> Reply | Rejected:
    """Makes a job CANCELLED at once; its devices are free when its agents say so."""
    job = asked(turn.state, command)
    if not isinstance(job, Job):
        return job
    if job.is_final:
        return wrong_status(job, "cancelled")
    before, attempt = job, job.attempt
    if attempt is not None and not attempt.ended_at_ms:
        remember_run(turn, job, to_ms=turn.state.age_ms(job, turn.now_ms), over=True)
        attempt = replace(attempt, stop=StopCause.CANCELLED, ask=None, hold=False)
    job = turn.move(
        job, Reason.CANCELLED_BY_USER, message=command.reason, attempt=attempt, not_before_ms=0
    )
    stop_leases(turn, job)
    let_stay(turn, before)
    settle(turn)
    return remember(turn, command.caller, reply=Reply(job=job), settings=settings)


def judge_submit(
    state: ClusterState,
    command: SubmitJob,
    *,
    live_jobs: int,
    settings: CoreSettings,
    together: Together,
) -> dict[str, str] | Rejected:
    """The status of each dependency of a job that may be accepted; else why it may not."""
    needed = command.policy.depends_on
    dependencies = _dependencies(state, command) if needed else {}
    unknown = [id for id in needed if id not in dependencies] if needed else ()
    if unknown:
        return Rejected(
            reason=Reason.DEPENDENCY_NOT_FOUND,
            message=f"no job {unknown[0]}",
            field="scheduling_config.depends_on",
        )
    place = command.queue_name, id(command.demand)
    if place not in together.fine:
        refused = closed(state, command.queue_name) or _never(state, command.demand)
        if refused is not None:
            return refused
        together.fine.add(place)
    return dependencies if live_jobs < settings.max_live_jobs else _too_many(live_jobs)


def misplaced(
    state: ClusterState, demand: Demand, *, live_jobs: int, settings: CoreSettings
) -> Rejected | None:
    """Why a demand is not taken: it can never fit, or too many jobs are there already."""
    never = _never(state, demand)
    return never if never or live_jobs < settings.max_live_jobs else _too_many(live_jobs)


def _never(state: ClusterState, demand: Demand) -> Rejected | None:
    shape = _bad_shape(demand)
    if shape is not None:
        return shape
    never = misfit(state.total, demand)
    if never is not None:
        return Rejected(reason=Reason.NEVER_FITS, message=never.message, field=never.field)
    return None


def _too_many(live_jobs: int) -> Rejected:
    return Rejected(reason=Reason.QUEUE_FULL, message=f"{live_jobs} jobs are waiting or running")


def _bad_shape(demand: Demand) -> Rejected | None:
    """What the border has checked already; the arithmetic of placement depends on it."""
    if demand.device_count < 1:
        field, text = "resource_config.gpu_count", "must be at least 1"
    elif not 0 < demand.thousandths <= WHOLE:
        field, text = "resource_config.gpu_fraction", "must be between 0.001 and 1"
    elif demand.thousandths < WHOLE and demand.device_count > 1:
        field, text = (
            "resource_config.gpu_fraction",
            "less than 1 is only possible with gpu_count 1",
        )
    elif demand.world_size < 0 or (demand.world_size and demand.device_count % demand.world_size):
        field, text = "training_config.framework.distributed.world_size", "must divide gpu_count"
    elif demand.node_count < 0 or (
        demand.node_count and (demand.world_size or demand.device_count) % demand.node_count
    ):
        field, text = "resource_config.node_count", "the ranks cannot be shared equally"
    else:
        return None
    return Rejected(reason=Reason.INVALID_ARGUMENT, message=text, field=field)


def _dependencies(state: ClusterState, command: SubmitJob) -> dict[str, str]:
    """Status of each dependency that is known: live ones here, finished ones from the command."""
    found: dict[str, str] = {}
    finished = dict(command.finished_dependencies)
    for needed_id in command.policy.depends_on:
        job = state.jobs.get(needed_id)
        if job is not None and job.tenant_id == command.caller.tenant_id:
            found[needed_id] = job.status
        elif job is None and needed_id in finished:
            found[needed_id] = finished[needed_id]
    return found


def _common(command: SubmitJob) -> tuple[object, ...]:
    """All that jobs of one command begin with, but for what tells those of a sweep apart."""
    caller = command.caller
    shared = id(command.demand), id(command.policy), id(command.wants), plain(command.name)
    return (
        *shared,
        command.image,
        command.queue_name,
        command.priority,
        caller.tenant_id,
        caller.user_id,
    )


def _born_like(first: Job, command: SubmitJob, *, sequence: int) -> Job:
    """The job as it begins, where another has all in common with it."""
    return replace(
        first,
        job_id=command.job_id,
        sequence=sequence,
        lineage_id=command.job_id,
        name=command.name,
        labels=command.labels,
        parent_job_id=command.parent_job_id,
    )


def _born(turn: Turn, command: SubmitJob, *, dependencies: dict[str, str]) -> Job:
    """The job as it begins."""
    caller = command.caller
    status, reason = JobStatus.QUEUED, Reason.WAITING_FOR_CAPACITY
    if any(status != JobStatus.COMPLETED for status in dependencies.values()):
        status, reason = JobStatus.PENDING, Reason.WAITING_FOR_DEPENDENCIES
    elif command.policy.start_after_ms > turn.now_ms:
        status, reason = JobStatus.PENDING, Reason.WAITING_FOR_START_TIME
    job = Job(
        job_id=command.job_id,
        sequence=turn.state.last_sequence + 1,
        lineage_id=command.job_id,
        tenant_id=caller.tenant_id,
        user_id=caller.user_id,
        name=command.name,
        labels=command.labels,
        parent_job_id=command.parent_job_id,
        queue_name=command.queue_name,
        priority=command.priority,
        demand=turn.state.queue.same(command.demand),
        policy=command.policy,
        wants=command.wants,
        image=command.image,
        status=status,
        reason=reason.value,
        work_ms=turn.state.first_work_ms(command),
        created_at_ms=turn.now_ms,
        updated_at_ms=turn.now_ms,
    )
    return job if status is JobStatus.PENDING else quota_first(turn.state, job)
