"""Devices that are set aside for who is next in line, from when they are expected to be free.

Theory of operation. The first job of a queue that finds no room, and may not take that of others, gets a
claim: the devices on which it will fit first as running attempts end, and when that is expected to be.
Nobody else gets them, unless it is over by then: who is expected to end before, and can be held to
it by its time limit or by being preempted, is lent what is idle of a claim. So small jobs fill the gaps
that a gang leaves while it gathers its nodes, and none of them delays it.

A claim is a promise of devices, not of a time: where attempts that were there before outlive what was
expected of them it is made anew. Who was lent some of it and still holds it then is asked to save
and stop. A job that stands before the claim's, in its queue, or that is owed its queue's guarantee,
takes what is free of it. One queue has one claim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from coordinator.core.attempts import grant
from coordinator.core.known import (
    DAY_MS,
    MOST_DOUBLINGS,
    holding,
    is_doubted,
    kept_for,
    lenders,
    may_be_preempted,
)
from coordinator.core.order import turn_of
from coordinator.core.placement import Placement
from coordinator.core.preempt import DeviceCount, is_held, is_sound, preempt
from coordinator.core.queue import Group
from coordinator.core.reasons import Reason
from coordinator.core.records import WHOLE, Claim, Job
from coordinator.core.ruling import Choice, keep_ruling
from coordinator.core.settings import CoreSettings
from coordinator.core.share import milli_of
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn

LOOKS = 1_024  # attempts whose ends are awaited for one claim
CLOSE_LOOKS = 64  # as many are looked at one by one; then in steps
DEEP = 16  # jobs of a group that are asked whether they are over in time
MOST_CLAIMS = 64
MOST_PLANNED = 64  # nodes that are to be out later, and are looked at for one job
FOREVER_MS = 1 << 52
MOST_LENDERS = 8  # claims of which a job may be lent something
STEP_MS = 30_000  # by which a claim that is late is put off at least


def pass_by(turn: Turn, job: Job) -> Placement | None:
    """Gives up a claim that stands behind a job which fits with what is free of that one."""
    for one in lenders(turn.state):
        if has_idle(turn.state, job, claimant=one) and _yields(turn.state, one, job=job):
            found = turn.state.place_without(job, unkept=one.job_id)
            if found is not None:
                drop(turn, one)
                return found
    return None


def has_idle(state: ClusterState, job: Job, *, claimant: Job) -> bool:
    """A quick no: whether what is free, with what is idle of a claim, is as many devices as a job needs."""
    free = sum(state.free.devices_by_type.values())
    is_part = job.demand.thousandths < WHOLE  # some of a device that is not idle may do
    return is_part or free + state.idle(claimant) >= job.demand.device_count


def lend(turn: Turn, group: Group, *, settings: CoreSettings) -> bool:
    """Starts a job of the group on what is idle of somebody's claim; whether there was one."""
    lending = list(_lenders(turn.state, group))
    if not lending and not turn.state.planned:
        return False
    for turn_ in group.soonest(DEEP):
        job = turn.state.jobs[turn_[-1]]
        over_ms = _over_ms(turn, job, settings=settings)
        if over_ms is None or turn.state.shares.limit_of(job) or is_doubted(turn.state, job):
            continue
        for lender in lending:
            assert lender.claim is not None
            if over_ms > lender.claim.from_ms:
                continue
            found = turn.state.place_without(job, unkept=lender.job_id)
            if found is not None:
                grant(turn, job, placement=found, lent_by=lender.job_id)
                return True
        found = _before_windows(turn, job, settings=settings)
        if found is not None:
            grant(turn, job, placement=found)
            return True
    return False


def _before_windows(turn: Turn, job: Job, *, settings: CoreSettings) -> Placement | None:
    """Where the job fits with nodes that are to be out later, but not before it is over.

    Who may be preempted is moved then, after a checkpoint; so it need not be over, but get on. Where the
    drain waits for whoever is there, it has to be expected to be over.
    """
    state = turn.state
    if not state.planned:
        return None
    left_ms = moved_ms = job.policy.max_runtime_ms or FOREVER_MS
    if job.policy.preemptible:
        left_ms = state.expected_left_ms(job, turn.now_ms)
        moved_ms = min(settings.min_run_ms, left_ms)
    open_until = {
        key: from_ms
        for key, from_ms in state.planned.items()
        if from_ms >= turn.now_ms + (moved_ms if _empties(state, key) else left_ms)
    }
    last = sorted(open_until, key=lambda key: (-open_until[key], key))[:MOST_PLANNED]
    return state.place_without(job, planned=last) if last else None


def _empties(state: ClusterState, node_id: str) -> bool:
    """Whether those who can be moved leave the node when it is to be out."""
    window = state.nodes[node_id].window
    return window is not None and (window.move or window.force)


def claim(turn: Turn, job: Job, *, again: bool) -> None:
    """Sets devices aside for a job that finds no room, if it is the first such of its queue. Where it is
    looked at again, somebody else's claim has stood its turn before it."""
    state = turn.state
    if job.claim is not None:
        return
    claimant = next((state.jobs[x] for x in state.claims.get(job.queue_name, ())), None)
    if claimant is None and len(state.claims) >= MOST_CLAIMS:
        return
    if claimant is not None and (again or not _yields(state, claimant, job=job)):
        return
    found = _plan(turn, job, unkept=claimant.job_id if claimant else "")
    if found is not None and not _is_parted(state, found):
        _foresee(turn, job, found=found)
    elif found is not None:
        if claimant is not None:
            drop(turn, claimant)
        turn.edit(job, Reason.ROOM_CLAIMED, claim=found, message=_told(found))


def _foresee(turn: Turn, job: Job, *, found: Claim) -> None:
    """What a job names may be brought to where it is to run within a day."""
    if job.wants and found.from_ms - turn.now_ms <= DAY_MS:
        turn.foresee(job.job_id, tuple(share.node_id for share in found.shares))


def drop(turn: Turn, job: Job) -> Job:
    """Gives a claim up; its job waits as before."""
    return turn.edit(job, Reason.CLAIM_LOST, claim=None, message="")


def take(turn: Turn, job: Job) -> None:
    """Lets a job have its turn once all devices of its claim are free; drops a claim that cannot be
    met. Whoever stands before it is asked first."""
    state = turn.state
    assert job.claim is not None
    shares = job.claim.shares
    if not _is_sound(state, job):
        drop(turn, job)
    elif not any(is_held(state, share, demand=job.demand) for share in shares):
        state.queue.try_again([state.queue.group_of[job.job_id]])


def fall_due(turn: Turn, job: Job, *, settings: CoreSettings) -> None:
    """The time of a claim has come, and its devices are not free."""
    assert job.claim is not None
    if not _is_sound(turn.state, job):
        drop(turn, job)
        return
    late = _holders(turn.state, job.claim)
    lent = [one for one in late if one.attempt and one.attempt.lent_by == job.job_id]
    if len(lent) < len(late):
        found = _plan(turn, job, unkept=job.job_id)
        if found is None or not _is_parted(turn.state, found):
            drop(turn, job)
        else:
            turn.edit(job, Reason.ROOM_CLAIMED, claim=found, message=_told(found))
        return
    # of the others its time limit makes an end, counted from when it began
    victims = [one for one in lent if may_be_preempted(one)]
    if victims:
        node_ids = tuple(share.node_id for share in job.claim.shares)
        choice = Choice(victims=victims, considered=victims)
        keep_ruling(turn, job, node_ids=node_ids, choice=choice)
    for one in victims:
        preempt(turn, one, job=job, most=settings.max_preemptions_per_day)
    later = replace(job.claim, from_ms=turn.now_ms + STEP_MS)
    turn.edit(turn.state.jobs[job.job_id], Reason.ROOM_CLAIMED, claim=later)


def _plan(turn: Turn, job: Job, *, unkept: str) -> Claim | None:
    """Where the job will fit first, and from when; None where that is not to be seen."""
    state = turn.state
    count = DeviceCount(state, job, kept=kept_for(state.jobs[unkept]) if unkept else ())
    seen = look_at = 0
    ending: list[Job] = []

    def expected_ms(job_id: str) -> int:
        return state.expected_end_ms(state.jobs[job_id], turn.now_ms)

    with state.supposing(job, unkept=unkept) as supposed:
        for job_id, at_ms in islice(state.ends.soonest(expected_ms), LOOKS):
            ending.append(state.jobs[job_id])
            count.add(ending[-1])
            seen += 1
            if not count.may_fit() or seen < look_at:
                continue
            supposed.end(ending)
            ending.clear()
            found = supposed.place_now(job.demand)
            if found is not None:
                from_ms = max(at_ms, turn.now_ms + STEP_MS)
                break
            look_at = seen + (seen // 4 if seen > CLOSE_LOOKS else 0)
        else:
            return None
    return Claim(shares=tuple(spot.share() for spot in found), from_ms=from_ms)


def _is_sound(state: ClusterState, job: Job) -> bool:
    """Whether the job may start, and all of its claim is in use."""
    shares = job.claim.shares if job.claim else ()
    held_back = is_doubted(state, job) or state.shares.limit_of(job) is not None
    return not held_back and all(is_sound(state, share) for share in shares)


def _is_parted(state: ClusterState, made: Claim) -> bool:
    """Whether something of it is free, or more than one has to end.

    Where it is a single attempt that holds all of it nobody can get hold of a part: no claim is needed.
    """
    held = [one for share in made.shares for one in holding(state, share)]
    count = sum(len(share.device_ids) for share in made.shares)
    return len({job_id for job_id, _ in held}) > 1 or len({device for _, device in held}) < count


def _holders(state: ClusterState, claim: Claim) -> list[Job]:
    found = [job_id for share in claim.shares for job_id, _ in holding(state, share)]
    return [state.jobs[job_id] for job_id in dict.fromkeys(found)]


def _yields(state: ClusterState, claimant: Job, *, job: Job) -> bool:
    """Whether the claim gives way to the job."""
    if claimant.job_id == job.job_id:
        return False
    queue = state.queue_of(job)
    if claimant.queue_name == job.queue_name:
        return turn_of(job, queue) < turn_of(claimant, queue)
    shares = state.shares
    if not shares.guarantees:
        return False
    return _is_owed(state, job) and not _is_owed(state, claimant)


def _is_owed(state: ClusterState, job: Job) -> bool:
    path = state.shares.path(job.queue_name)
    return any(state.shares.is_entitled(name, milli_of(job)) for name in path)


def _lenders(state: ClusterState, group: Group) -> Iterator[Job]:
    """Who has a claim of which enough is idle for a job of the group, the longest from now first."""
    claims = [(one, one.claim) for one in lenders(state) if one.claim]
    claims.sort(key=lambda x: (-x[1].from_ms, x[0].sequence))
    free = sum(state.free.devices_by_type.values())
    for one, _ in claims[:MOST_LENDERS]:
        if free + state.idle(one) >= group.demand.device_count:
            yield one


def _over_ms(turn: Turn, job: Job, *, settings: CoreSettings) -> int | None:
    """By when a job that starts now is expected to be over, and can be held to it; None for never."""
    limit_ms = job.policy.max_runtime_ms
    if job.policy.preemptible and turn.state.queue_of(job).preempts:
        today = sum(turn.now_ms - at_ms < DAY_MS for at_ms in job.preempted_at_ms)
        if today < settings.max_preemptions_per_day:
            return turn.now_ms + (settings.min_run_ms << min(today, MOST_DOUBLINGS))
    if job.policy.preemptible:
        return turn.now_ms + turn.state.expected_left_ms(job, turn.now_ms)
    return turn.now_ms + limit_ms if limit_ms else None


def _told(made: Claim) -> str:
    nodes = len(made.shares)
    count = sum(len(share.device_ids) for share in made.shares)
    where = f"{nodes} nodes" if nodes > 1 else "one node"
    if count == 1:
        return f"a device of {where} is set aside for it until all of it is free"
    return f"{count} devices of {where} are set aside for it until all of them are free"
