"""Why a job waits, what each node says to it, and what could be asked for instead.

All of it is read from one state and decides nothing. When the job starts, as it is or changed, is the
forecast's to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from coordinator.core.capacity import Capacity
from coordinator.core.health import Grade
from coordinator.core.known import is_doubted, is_in_line
from coordinator.core.near import count_of
from coordinator.core.order import HIGHEST_PRIORITY, turn_of
from coordinator.core.placement import misfit, node_share, place, rank_count
from coordinator.core.queues import closed, counted, kept_back
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    IDLE,
    ROOT,
    WHOLE,
    Demand,
    Device,
    Job,
    JobStatus,
    Node,
    Order,
)
from coordinator.core.room import Room
from coordinator.core.share import entitled_milli, tenant_account
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn

MOST_VERDICTS = 200
MOST_CHANGES = 24
MOST_QUEUES = 4  # others, that are tried
DEFAULT_QUEUE = "default"
NAMED = 4


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that keeps a job from starting."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one node says to a job; `reason` is None where it could take its share now."""

    node_id: str
    reason: Reason | None
    message: str


@dataclass(frozen=True, slots=True)
class Change:
    """The job as it might have been asked for."""

    text: str
    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What is true of a job now; without times."""

    blockers: tuple[Blocker, ...] = ()
    position: int = 0  # in its queue, 1 for the head; 0 when it does not wait
    verdicts: tuple[Verdict, ...] = ()


def explain(state: ClusterState, job: Job, *, now_ms: int) -> Explanation:
    """Why a job does not run; empty for one that is not to be placed."""
    with state.supposing(job) as supposed:
        supposed.begin()
        return _explain(state, job, now_ms=now_ms)


def _explain(state: ClusterState, job: Job, *, now_ms: int) -> Explanation:
    blockers = list(_blockers(state, job, now_ms=now_ms))
    if not is_in_line(job):
        return Explanation(blockers=tuple(blockers))
    ahead, rivals = _ahead(state, job, now_ms=now_ms)
    if rivals:
        text = f"{counted(rivals, 'job')} before it in line could use the same devices"
        blockers.append(Blocker(Reason.JOBS_AHEAD, text))
    return Explanation(
        blockers=tuple(blockers),
        position=ahead + 1,
        verdicts=tuple(_verdicts(state, job, now_ms=now_ms)),
    )


def changes(state: ClusterState, job: Job) -> list[Change]:
    """What a user could have asked for instead, the least change first; all of it could ever run."""
    found = []
    for text, changed in _wishes(state, job):
        fits = misfit(state.total, changed.demand) is None
        if fits and (changed.demand, changed.queue_name, changed.priority) != (
            job.demand,
            job.queue_name,
            job.priority,
        ):
            found.append(Change(text, changed))
    return found[:MOST_CHANGES]


def alter(state: ClusterState, change: Change, *, now_ms: int) -> None:
    """Lets a job wait as the changed one, in a state that is used up afterwards, and which may not know
    it yet."""
    turn = Turn(state, now_ms, epoch=0)
    job, claim = state.jobs.get(change.job.job_id), None
    if job is not None:
        turn.put(replace(job, not_before_ms=now_ms + 1), Reason.ACCEPTED)
        claim = job.claim
    turn.put(replace(change.job, room=(), claim=claim, awaits=None), Reason.ACCEPTED)


def _blockers(state: ClusterState, job: Job, *, now_ms: int) -> Iterator[Blocker]:
    if job.status is JobStatus.PAUSED:
        yield Blocker(Reason.PAUSED_BY_USER, "it is paused; resume it")
    if job.status is JobStatus.PREEMPTED:
        yield Blocker(Reason.PREEMPTED, "it was preempted and is not queued again; retry it")
    if job.status is JobStatus.PENDING:
        for needed_id in job.policy.depends_on:
            needed = state.jobs.get(needed_id)
            if needed is not None and needed.status is not JobStatus.COMPLETED:
                text = f"it waits for {needed_id}, which is {needed.status}"
                yield Blocker(Reason.WAITING_FOR_DEPENDENCIES, text)
        if job.policy.start_after_ms > now_ms:
            wait_s = (job.policy.start_after_ms - now_ms) / 1000
            text = f"start_after is reached in {wait_s:.0f} s"
            yield Blocker(Reason.WAITING_FOR_START_TIME, text)
    if not is_in_line(job):
        return
    if job.not_before_ms > now_ms:
        wait_s = (job.not_before_ms - now_ms) / 1000
        yield Blocker(Reason.RETRYING, f"it failed and is tried again in {wait_s:.0f} s")
    yield from _doubts(state, job)
    yield from _awaited(job, now_ms=now_ms)
    back = kept_back(state, job)
    if back is not None:
        yield Blocker(*back)
    yield from _capacity_blockers(state, job, now_ms=now_ms)
    yield from _claims(state, job, now_ms=now_ms)


def _awaited(job: Job, *, now_ms: int) -> Iterator[Blocker]:
    if job.awaits is None or not job.awaits.shares:
        return
    nodes = ", ".join(share.node_id for share in job.awaits.shares[:NAMED])
    left_s = max(0, job.awaits.until_ms - now_ms) / 1000
    text = (
        f"devices of {nodes}, where its data are, are set aside for it; if they are not free in "
        f"{left_s:.0f} s it takes what is free elsewhere and fetches them"
    )
    yield Blocker(Reason.DATA_AWAITED, text)


def _claims(state: ClusterState, job: Job, *, now_ms: int) -> Iterator[Blocker]:
    if job.claim is not None:
        return
    for held in state.claims.values():
        for claimant_id in held:
            claim = state.jobs[claimant_id].claim
            if claim is None or state.place_without(job, unkept=claimant_id) is None:
                continue
            left_s = max(0, claim.from_ms - now_ms) / 1000
            can = "" if job.policy.preemptible else " by its max_runtime_seconds"
            text = (
                "devices that could hold it are set aside for a job that is next in line; it gets "
                f"them only if it is expected to be over{can} within {left_s:.0f} s"
            )
            yield Blocker(Reason.DEVICES_CLAIMED, text)
            return


def _doubts(state: ClusterState, job: Job) -> Iterator[Blocker]:
    if state.doubt.restored:
        count = len(state.doubt.restored)
        text = f"the cluster was restored from a backup, and {count} nodes were not heard yet"
        yield Blocker(Reason.NODES_AWAITED, text)
    if is_doubted(state, job):
        text = "an earlier attempt of it, which is not known here any more, is being stopped"
        yield Blocker(Reason.LEASES_UNKNOWN, text)


def _capacity_blockers(state: ClusterState, job: Job, *, now_ms: int) -> Iterator[Blocker]:
    demand = job.demand
    never = misfit(state.total, demand)
    if never is not None:
        yield Blocker(Reason.NEVER_FITS, never.message)
        return
    if place(state.free, demand) is not None:
        return
    planned = {id: room for id in state.planned if (room := state.free_room(id, planned=True))}
    if planned and _would_fit(state, demand, away=planned):
        when = "; ".join(
            f"{id} {_maintained(state, id, job=job, now_ms=now_ms)}"
            for id in sorted(planned)[:NAMED]
        )
        text = f"nodes that are to be out could hold it, but not until then: {when}"
        yield Blocker(Reason.WINDOW_PLANNED, text)
        return
    wanted = _wanted(demand)
    free, largest = _free(state.free, demand)
    if free >= demand.device_count:
        text = (
            f"it needs {wanted}; {_are(free)} free, but not where its gang would fit: "
            f"at most {largest} on one node"
        )
        yield Blocker(Reason.DEVICES_SCATTERED, text)
    else:
        known, _ = _free(state.total, demand)
        there = " there" if demand.exclusive else ""
        text = f"it needs {wanted}; {_are(free, of=known)} free{there}"
        yield Blocker(Reason.DEVICES_BUSY, text)
    away = _away(state)
    if not away:
        return
    kept_out = {id: room for id, room in away.items() if is_kept_out(state, state.nodes[id])}
    if kept_out and _would_fit(state, demand, away=kept_out):
        text = "; ".join(map(_why_kept_out, (state.nodes[id] for id in sorted(kept_out)[:NAMED])))
        yield Blocker(
            Reason.NODE_QUARANTINED, f"what is kept out for its faults could hold it: {text}"
        )
    elif _would_fit(state, demand, away=away):
        why = Counter(_why_away(state.nodes[node_id]) for node_id in away)
        text = ", ".join(f"{count} {what}" for what, count in sorted(why.items()))
        yield Blocker(Reason.DEVICES_AWAY, f"nodes that do not take jobs could hold it: {text}")


def _would_fit(state: ClusterState, demand: Demand, *, away: dict[str, Room]) -> bool:
    """Whether it would, if these nodes took jobs as well."""
    with_them = Capacity()
    for node_id, room in (*state.free.rooms.items(), *away.items()):
        with_them.put(node_id, room)
    return place(with_them, demand) is not None


def _maintained(state: ClusterState, node_id: str, *, job: Job, now_ms: int) -> str:
    left_s = max(0, state.planned[node_id] - now_ms) / 1000
    window = state.nodes[node_id].window
    who = "who is over by then or can be moved"
    if window is not None and not (window.move or window.force):
        who = "who is expected to be over by then"
    if not job.policy.preemptible:
        who = "who can be moved, or is over by then by its max_runtime_seconds"
    return f"is to be out in {left_s:.0f} s, and takes only {who}"


def is_kept_out(state: ClusterState, node: Node) -> bool:
    """Whether a node, or a part of it, is out for its health, and for nothing else."""
    if node.drain or node.unreachable_since_ms or state.doubt.bars(node.node_id):
        return False
    is_out = any(grade.is_out for _, grade in node.health.grades())
    return is_out and all(device.healthy for device in node.offer.devices)


def _why_kept_out(node: Node) -> str:
    whole = node.health.node
    if whole.is_out:
        return f"{node.node_id} is {whole.state}{_newest(whole)}"
    out = [(id, grade) for id, grade in node.health.devices if grade.is_out]
    return f"{len(out)} devices of {node.node_id} are {out[0][1].state}{_newest(out[0][1])}"


def _newest(grade: Grade) -> str:
    return f" ({grade.notes[-1].code})" if grade.notes else ""


def _wanted(demand: Demand) -> str:
    nodes = f" on {counted(demand.node_count, 'node')}" if demand.node_count else ""
    if demand.exclusive:
        nodes = f"{nodes or ' on nodes'} that nobody else uses"
    return f"{demand.size / WHOLE:g} x {demand.device_type or 'any device'}{nodes}"


def _are(count: int, *, of: int | str = "") -> str:
    """So many are, in words."""
    return f"{count}{f' of {of}' if of else ''} {'is' if count == 1 else 'are'}"


def _free(capacity: Capacity, demand: Demand) -> tuple[int, int]:
    """(devices that the demand accepts, most of them on one node)."""
    total = largest = 0
    for _, classes in capacity.classes_for(demand):
        for one in classes:
            on_nodes = capacity.shelf(one, demand.labels).free_counts(demand.thousandths)
            total += sum(count * nodes for count, nodes in on_nodes.items())
            largest = max(largest, *on_nodes, 0)
    return total, largest


def _away(state: ClusterState) -> dict[str, Room]:
    """What nodes that take no jobs would have free otherwise."""
    found = {}
    for node_id, node in state.nodes.items():
        out = node.drain is not None or node.unreachable_since_ms
        out = out or any(grade.is_out for _, grade in node.health.grades())
        if not out and all(device.healthy for device in node.offer.devices):
            continue
        room = state.free_room(node_id, anyway=True)
        if room is not None:
            found[node_id] = room
    return found


def _why_away(node: Node) -> str:
    if node.unreachable_since_ms:
        return "out of contact"
    if node.drain is not None:
        return "drained"
    kept_out = any(grade.is_out for _, grade in node.health.grades())
    return "kept out for its faults" if kept_out else "with unhealthy devices"


def _ahead(state: ClusterState, job: Job, *, now_ms: int) -> tuple[int, int]:
    """(jobs before it in its queue, those of them that could take devices that it accepts)."""
    queue = state.queue_of(job)
    used = {"": 0.0}

    def stand(one: Job) -> tuple[int, float, tuple[int, int, int, str]]:
        account = state.shares.account_of(one) if queue.order is Order.FAIR else ""
        if account not in used:
            used[account] = state.shares.average_ppb(account, now_ms)
        turn = turn_of(one, queue)
        return turn[0], used[account], turn

    own = stand(job)
    types = set(job.demand.device_types)
    ahead = rivals = 0
    for job_id in state.queue.group_of:
        other = state.jobs[job_id]
        if other.queue_name != job.queue_name or stand(other) >= own:
            continue
        ahead += 1
        theirs = other.demand.device_types
        rivals += not types or not theirs or not types.isdisjoint(theirs)
    return ahead, rivals


def _verdicts(state: ClusterState, job: Job, *, now_ms: int) -> list[Verdict]:
    """What each node says to its share of the gang; those that fit first, at most MOST_VERDICTS.

    Of those that fit, who holds the most of what the job names comes first, and says so.
    """
    demand, wants = job.demand, job.wants
    ranks = rank_count(demand)
    share = ranks // demand.node_count if demand.node_count else 1
    found = [
        _verdict(state, node, job=job, ranks=share, now_ms=now_ms) for node in state.nodes.values()
    ]
    counts = {one: count_of(wants, state.nodes[one].offer.holds) for one in state.near.of(wants)}
    places = {node_id: place for place, node_id in enumerate(counts)}
    last = len(places)
    found.sort(key=lambda one: (one.reason is not None, places.get(one.node_id, last), one.node_id))
    return [_told(one, counts.get(one.node_id, 0), of=len(wants)) for one in found[:MOST_VERDICTS]]


def _told(verdict: Verdict, count: int, *, of: int) -> Verdict:
    """The verdict of a node with how much it holds of what the job names."""
    if not count:
        return verdict
    text = f"it holds {count} of the {of} data sets and images that the job names"
    return replace(verdict, message=f"{verdict.message}; {text}" if verdict.message else text)


def _verdict(state: ClusterState, node: Node, *, job: Job, ranks: int, now_ms: int) -> Verdict:
    demand = job.demand

    def no(reason: Reason, text: str) -> Verdict:
        return Verdict(node.node_id, reason, text)

    needed = ranks * demand.devices_per_rank
    labels = dict(node.offer.labels)
    missing = [f"{k}={v}" for k, v in demand.node_selector if labels.get(k) != v]
    if missing:
        return no(Reason.LABELS_MISSING, f"it does not carry {', '.join(missing)}")
    fitting = [one for one in node.offer.devices if demand.accepts(one.type)]
    if not fitting:
        types = ", ".join(sorted({one.type for one in node.offer.devices})) or "none"
        return no(Reason.DEVICE_TYPE_MISSING, f"its devices are {types}")
    fitting = [one for one in fitting if one.memory_bytes >= demand.device_memory_bytes]
    if len(fitting) < needed:
        what = "large enough devices" if demand.device_memory_bytes else "fitting devices"
        return no(Reason.DEVICES_TOO_FEW, f"it has {len(fitting)} {what} of {needed}")
    if node.unreachable_since_ms:
        return no(Reason.NODE_UNREACHABLE, "it is out of contact")
    if node.drain is not None:
        return no(Reason.DRAIN_REQUESTED, "it is drained")
    if node.health.node.is_out:
        return no(Reason.NODE_QUARANTINED, f"it is {_why_kept_out(node).partition(' is ')[2]}")
    if unknown := state.doubt.unknown.get(node.node_id):
        return no(Reason.LEASES_UNKNOWN, f"{len(unknown)} leases there are being stopped")
    said = _verdict_of_room(state, node, demand=demand, fitting=fitting, ranks=ranks)
    if said is None and node.node_id in state.planned:
        text = f"it {_maintained(state, node.node_id, job=job, now_ms=now_ms)}"
        return no(Reason.WINDOW_PLANNED, text)
    return said or Verdict(node.node_id, None, "")


def _verdict_of_room(
    state: ClusterState, node: Node, *, demand: Demand, fitting: list[Device], ranks: int
) -> Verdict | None:
    needed = ranks * demand.devices_per_rank
    room = state.free.rooms.get(node.node_id)
    if node.node_id in state.planned:
        room = state.free_room(node.node_id, planned=True)
    if demand.exclusive and room and IDLE not in room.labels:
        return Verdict(
            node.node_id, Reason.MACHINE_BUSY, "it is not for one job alone: others use it"
        )
    healthy = {one.device_id for one in fitting if one.healthy}
    if len(healthy) < needed:
        text = f"{len(fitting) - len(healthy)} of its {len(fitting)} fitting devices are unhealthy"
        return Verdict(node.node_id, Reason.DEVICES_UNHEALTHY, text)
    out = node.health.out_devices()
    kept = {one for one in healthy if one in out}
    if len(healthy) - len(kept) < needed:
        text = f"{len(kept)} of its {len(fitting)} fitting devices are kept out for their faults"
        return Verdict(node.node_id, Reason.DEVICES_QUARANTINED, text)
    free = len(room.devices_with(demand.thousandths) & healthy) if room else 0
    if room is None or free < needed:
        text = f"{_are(free, of=f'its {len(fitting)} fitting devices')} free, {_are(needed)} needed"
        return Verdict(node.node_id, Reason.DEVICES_BUSY, text)
    share = node_share(demand, ranks)
    lacks = [
        f"{have:g} {what} free of {need:g}"
        for what, need, have in (
            ("CPU cores", share.cpu_count, room.cpu_count),
            ("GB of memory", share.memory_bytes / 1e9, room.memory_bytes / 1e9),
            ("GB of disk", share.disk_bytes / 1e9, room.disk_bytes / 1e9),
        )
        if need > have
    ]
    return Verdict(node.node_id, Reason.MACHINE_BUSY, "; ".join(lacks)) if lacks else None


def _wishes(state: ClusterState, job: Job) -> Iterator[tuple[str, Job]]:
    demand = job.demand
    if demand.node_count:
        yield "node_count=0", _with(job, replace(demand, node_count=0))
    if demand.device_type:
        yield "gpu_type=", _with(job, replace(demand, device_type=""))
        for name in sorted(state.total.devices_by_type):
            yield f"gpu_type={name}", _with(job, replace(demand, device_type=name))
    if demand.device_memory_bytes:
        yield "gpu_memory_gb=0", _with(job, replace(demand, device_memory_bytes=0))
    if demand.within:
        yield "within=", _with(job, replace(demand, within=""))
    if demand.exclusive:
        yield "exclusive=false", _with(job, replace(demand, exclusive=False))
    for pair in demand.node_selector:
        rest = tuple(one for one in demand.node_selector if one != pair)
        yield f"node_selector without {pair[0]}", _with(job, replace(demand, node_selector=rest))
    if demand.cpu_count:
        yield "cpu_count=0", _with(job, replace(demand, cpu_count=0))
    if demand.memory_bytes:
        yield "memory_gb=0", _with(job, replace(demand, memory_bytes=0))
    count = demand.device_count
    while count > 1 and not demand.world_size and not demand.node_count:
        count //= 2
        yield f"gpu_count={count}", _with(job, replace(demand, device_count=count))
    for name in _other_queues(state, job):
        yield f"queue_name={name}", replace(job, queue_name=name)
    if job.priority < HIGHEST_PRIORITY:
        yield f"priority={HIGHEST_PRIORITY}", replace(job, priority=HIGHEST_PRIORITY, aged=0)


def _other_queues(state: ClusterState, job: Job) -> list[str]:
    """Queues that its tenant knows of and that take jobs: the default one, those in which it holds devices,
    and those that name it; first the one that may hold most more of what it is guaranteed."""
    shares = state.shares
    known = {DEFAULT_QUEUE} if DEFAULT_QUEUE not in state.queues else set()
    for name, queue in state.queues.items():
        is_named = job.tenant_id in dict(queue.tenant_limits)
        if name != ROOT and (
            name == DEFAULT_QUEUE or is_named or tenant_account(name, job.tenant_id) in shares.held
        ):
            known.add(name)
    found = [name for name in known if name != job.queue_name and closed(state, name) is None]
    found.sort(key=lambda name: (-entitled_milli(shares, state.queues.get(name)), name))
    return found[:MOST_QUEUES]


def _with(job: Job, demand: Demand) -> Job:
    return replace(job, demand=demand)
