"""Setting and removing queues. A queue that nobody has set is as one by default, below ROOT."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.commands import PutQueue, RemoveQueue
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import ROOT, WHOLE, Job, JobStatus, Kind, Queue
from coordinator.core.requests import recall, remember
from coordinator.core.settings import CoreSettings
from coordinator.core.share import MOST_LEVELS, tenant_limit
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn


def put_queue(turn: Turn, command: PutQueue, *, settings: CoreSettings) -> Reply | Rejected:
    """Sets a queue whole; what it is already is no change."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    queues, queue = turn.state.queues, command.queue
    refused = _misplaced(turn.state, queue) or _contradicts(queue)
    if refused is not None:
        return refused
    before = queues.get(queue.name)
    if before is None and len(queues) >= settings.max_queues:
        text = f"there are {len(queues)} queues, as many as there may be: remove one"
        return Rejected(reason=Reason.QUEUE_REFUSED, message=text, field="name")
    version = before.version + 1 if before else 1
    after = replace(queue, version=version, updated_at_ms=turn.now_ms)
    if before is not None and replace(after, version=0, updated_at_ms=0) == replace(
        before, version=0, updated_at_ms=0
    ):
        after = before
    if command.validate_only:
        return Reply(queue=after)
    if after is not before:
        turn.put(after, Reason.QUEUE_CHANGED)
    return remember(turn, command.caller, reply=Reply(queue=after), settings=settings)


def remove_queue(turn: Turn, command: RemoveQueue, *, settings: CoreSettings) -> Reply | Rejected:
    """Lets a queue be as by default again; its jobs stay in it."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    queue = turn.state.queues.get(command.name)
    if queue is None:
        text = f"no queue {command.name} was set"
        return Rejected(reason=Reason.QUEUE_NOT_FOUND, message=text, field="name")
    below = next((x.name for x in turn.state.queues.values() if x.parent == command.name), None)
    if below is not None and command.name != ROOT:  # which all others stand below, set or not
        text = f"queue {below} is below it: remove that first, or give it another parent"
        return Rejected(reason=Reason.QUEUE_REFUSED, message=text, field="name")
    turn.retire(Kind.QUEUE, command.name)
    return remember(turn, command.caller, reply=Reply(queue=queue), settings=settings)


def closed(state: ClusterState, queue_name: str | None) -> Rejected | None:
    """Why a queue takes no new jobs; None where it does."""
    for name in state.shares.path(queue_name) if queue_name else ():
        queue = state.queues.get(name)
        if queue is not None and not queue.accepts:
            text = f"queue {name} takes no jobs at present"
            field = "scheduling_config.queue_name"
            return Rejected(reason=Reason.QUEUE_CLOSED, message=text, field=field)
    return None


def kept_back(state: ClusterState, job: Job) -> tuple[Reason, str] | None:
    """Which limit keeps a job from starting whatever is free, and what is held below it."""
    limit = state.shares.limit_of(job)
    if limit is None:
        return None
    name, tenant = limit
    queue = state.queues[name]
    if not queue.places:
        return Reason.QUEUE_CORDONED, f"queue {name} starts no jobs at present"
    if tenant:
        most, held = state.shares.tenant(name, tenant)
        text = _over(job, f"its tenant in queue {name}", most=most or 0, held=held)
        return Reason.TENANT_LIMIT, text
    held = state.shares.devices_milli(name) / WHOLE
    return Reason.QUEUE_LIMIT, _over(job, f"queue {name}", most=queue.max_devices, held=held)


def counted(count: float, what: str) -> str:
    """So many of something, in words."""
    return f"{count:g} {what}" if count == 1 else f"{count:g} {what}s"


def _over(job: Job, who: str, *, most: int, held: float) -> str:
    """How a job is too much for a limit, be it by itself."""
    need = job.demand.size / WHOLE
    if need > most:
        return f"it needs {counted(need, 'device')}, and {who} may hold {most}: as it is it never starts"
    return f"it would take {who} over {counted(most, 'device')}; {held:g} held now"


def awaits_quota(state: ClusterState, job: Job) -> bool:
    """Whether a job that nothing else keeps from its turn is PENDING until a limit lets it.

    Limits are asked when it is its turn (see schedule.py), because who was accepted at the same time and
    has its turn before it may have taken what was left. Where others like it were let in and wait for
    devices, it may be let in with them.
    """
    shares = state.shares
    above = [x for x in map(state.queues.get, shares.path(job.queue_name)) if x is not None]
    if not any(x.max_devices or tenant_limit(x, job.tenant_id) is not None for x in above):
        return False
    like = state.queue.groups.get((job.queue_name, shares.account_of(job), job.demand))
    return like is None or bool(like.pending) or shares.limit_of(job) is not None


def quota_first(state: ClusterState, job: Job) -> Job:
    """The job as it begins where nothing else keeps it from its turn."""
    if not awaits_quota(state, job):
        return job
    return replace(job, status=JobStatus.PENDING, reason=Reason.WAITING_FOR_QUOTA.value)


def _misplaced(state: ClusterState, queue: Queue) -> Rejected | None:
    """Why a queue cannot stand where it is to stand in the tree."""

    def refused(text: str) -> Rejected:
        return Rejected(reason=Reason.QUEUE_REFUSED, message=text, field="parent")

    if queue.name == ROOT:
        return refused(f"{ROOT} is above all queues") if queue.parent != ROOT else None
    names = [queue.name]
    above = queue.parent
    while above != ROOT:
        if above in names:
            return refused(f"{queue.name} would be above itself")
        known = state.queues.get(above)
        if known is None:
            return refused(f"no queue {above} was set: set it first")
        names.append(above)
        above = known.parent
    levels = len(names) + _levels_below(state, queue.name)
    if levels >= MOST_LEVELS:
        return refused(f"queues would be {levels} deep below {ROOT}; at most {MOST_LEVELS - 1} may")
    return None


def _contradicts(queue: Queue) -> Rejected | None:
    """Why a queue can never get what it is guaranteed."""
    most = queue.max_devices
    if not most or queue.guaranteed_devices <= most:
        return None
    text = f"{queue.guaranteed_devices} devices are more than the {most} that it may hold"
    return Rejected(reason=Reason.QUEUE_REFUSED, message=text, field="guaranteed_devices")


def _levels_below(state: ClusterState, name: str) -> int:
    children = [
        one.name for one in state.queues.values() if one.parent == name and one.name != name
    ]
    return max((1 + _levels_below(state, child) for child in children), default=0)
