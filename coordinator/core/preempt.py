"""Taking devices from running attempts for a job whose turn is before theirs.

Theory of operation. Who may be preempted: attempts of the same queue that the job's owner allows, of lower
priority or, where the queue is ordered by SHORTEST, of the same priority with more to do by a factor. A
job of a queue that holds less than its guarantee takes it back from the queues beside it that hold more
than theirs, those with most of it first. Each
for the first time after its minimum run time, and so many times a day at most. Of those a set is
sought that makes the whole job fit, those with most to do first, and thinned out by what would be lost: the
device-seconds since the last proven checkpoint. Nobody is preempted for a job that would not fit by it.

The devices on which the job will run, those of the preempted and the free ones beside them, are set
aside in the job's record until all of them are free. They survive a restart with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice, pairwise, takewhile

from coordinator.core.attempts import grant
from coordinator.core.cadence import awaited_ms
from coordinator.core.known import is_doubted, is_spared, kept_for
from coordinator.core.moves import Moving
from coordinator.core.order import key_of, least_level
from coordinator.core.placement import Placement, Spot
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    WHOLE,
    Demand,
    Job,
    OnTimeout,
    Order,
    Queue,
    Share,
    StopCause,
)
from coordinator.core.replay import thin
from coordinator.core.ruling import Choice, cost_ms, keep_ruling
from coordinator.core.saving import save_and_stop
from coordinator.core.settings import CoreSettings
from coordinator.core.share import Shares, milli_of
from coordinator.core.state import ClusterState
from coordinator.core.suppose import Supposed
from coordinator.core.turn import Turn

LOOKS = 256  # attempts that are considered for one job
MOST_INSTEAD = 4  # of those that go, for whom it is kept who would have gone instead
MOST_RIVALS = 16  # further ones that might
MOST_OTHERS = 32  # of all considered, that might go in place of those found first

Victims = dict[str, Job]


def make_room(turn: Turn, job: Job, *, settings: CoreSettings) -> bool:
    """Preempts others for a job that finds no room; answers whether room will be made."""
    queue = turn.state.queue_of(job)
    if not queue.preempts and not turn.state.shares.guarantees:
        return False
    found = _plan(turn, job, queue=queue, settings=settings)
    if found is None:
        return False
    placement, choice = found
    victims = choice.victims
    others = (
        f"{len(victims)} others save and stop" if len(victims) > 1 else "another saves and stops"
    )
    text = f"devices are set aside while {others}"
    until_ms = max(awaited_ms(one, now_ms=turn.now_ms, settings=settings) for one in victims)
    if until_ms:
        text += f", within {(until_ms - turn.now_ms) // 1000} s, as a checkpoint is near"
    turn.edit(
        job,
        Reason.ROOM_SET_ASIDE,
        room=tuple(spot.share() for spot in placement),
        claim=None,
        message=text,
    )
    node_ids = tuple(spot.node_id for spot in placement)
    keep_ruling(turn, job, node_ids=node_ids, choice=choice)
    for victim in victims:
        room = choice.moves.get(victim.job_id, ())
        preempt(turn, victim, job=job, most=settings.max_preemptions_per_day, room=room)
    return True


def take_room(turn: Turn, job: Job) -> None:
    """Places a job on the devices that are reserved for it, once all are free; gives them up where they will
    not be, or a limit says that it may not have them."""
    state, shares = turn.state, job.reserved
    if is_doubted(state, job):
        return
    if state.shares.limit_of(job) or not all(is_sound(state, share) for share in shares):
        lose_room(turn, job)
    elif not any(is_held(state, share, demand=job.demand) for share in shares):
        unit = job.demand.devices_per_rank
        grant(turn, job, placement=tuple(Spot.of(share, unit=unit) for share in shares))


def lose_room(turn: Turn, job: Job) -> None:
    """Has a job stand in line again, without what was reserved for it; it has waited for its data then."""
    awaits = replace(job.awaits, shares=()) if job.awaits else None
    turn.edit(job, Reason.ROOM_LOST, room=(), awaits=awaits, message="")


def _plan(
    turn: Turn, job: Job, *, queue: Queue, settings: CoreSettings
) -> tuple[Placement, Choice] | None:
    """Where the job will run, and who has to go for it."""
    if not _may_be_enough(turn.state, job, queue=queue):
        return None
    candidates = _candidates(turn, job, queue=queue, settings=settings)
    with turn.state.supposing(job) as supposed:
        search = _Search(turn, job, supposed=supposed)
        chosen, placement = search.seek(islice(candidates, LOOKS))
        if placement is None:
            return _with_moves(turn, job, queue=queue, supposed=supposed, chosen=chosen)
        there = _on_nodes(chosen, placement)
        considered = [*chosen.values(), *islice(candidates, MOST_RIVALS)]
        placement, victims = search.least(chosen, placement, considered=considered)
        there |= victims
        instead = {
            key: search.instead(victims, [one for one in considered if one.job_id != key])
            for key in [*victims][:MOST_INSTEAD]
        }
    return placement, Choice(
        victims=[*victims.values()],
        considered=considered,
        beside={one.job_id for one in considered if one.job_id not in there},
        instead=instead,
    )


def _may_be_enough(state: ClusterState, job: Job, *, queue: Queue) -> bool:
    """A quick no: whether what is free, and all that may be taken, are as many devices as the job needs."""
    if state.shares.guarantees:
        return True  # others may owe it some
    count = sum(state.free.devices_by_type.values()) + sum(
        len(share.device_ids) for share in kept_for(job)
    )
    running, name = state.running, job.queue_name
    count += sum(running.device_count((name, one), 0) for one in range(job.standing))
    if queue.order is Order.SHORTEST:
        count += running.device_count((name, job.standing), least_level(job))
    return count >= job.demand.device_count


def _with_moves(
    turn: Turn, job: Job, *, queue: Queue, supposed: Supposed, chosen: Victims
) -> tuple[Placement, Choice] | None:
    """The same where others go on elsewhere for it as well."""
    found = Moving(turn, job, supposed=supposed).seek(chosen) if queue.preempts else None
    if found is None:
        return None
    placement, going, moves = found
    return placement, Choice(victims=[*going.values()], considered=[*going.values()], moves=moves)


class _Search:
    """Tries out who makes room by ending, on a supposed state."""

    def __init__(self, turn: Turn, job: Job, *, supposed: Supposed) -> None:
        self._turn = turn
        self._job = job
        self._supposed = supposed

    def seek(self, candidates: Iterable[Job]) -> tuple[Victims, Placement | None]:
        """So many of them as make room, supposed to have ended, and where; no place where all of them
        are not enough."""
        job, supposed = self._job, self._supposed
        chosen: Victims = {}
        ending: list[Job] = []
        count = DeviceCount(self._turn.state, job, kept=kept_for(job))
        for victim in candidates:
            chosen[victim.job_id] = victim
            ending.append(victim)
            count.add(victim)
            if count.may_fit():
                supposed.end(ending)
                ending.clear()
                placement = supposed.place_now(job.demand)
                if placement is not None:
                    return chosen, placement
        return chosen, None

    def thinned(self, chosen: Victims, placement: Placement) -> tuple[Placement, Victims]:
        """Lets go who is not needed, the dearest first."""
        left = _on_nodes(chosen, placement)
        for key, one in chosen.items():
            if key not in left:
                self._supposed.stay(one)

        def may_stay(key: str) -> bool:
            nonlocal placement
            self._supposed.stay(left[key])
            found = self._supposed.place(self._job.demand)
            if found is None:
                self._supposed.end([left[key]])
                return False
            placement = found
            return True

        go = set(thin(self._costs_ms(left.values()), may_stay))
        return placement, {key: one for key, one in left.items() if key in go}

    def least(
        self, chosen: Victims, placement: Placement, *, considered: list[Job]
    ) -> tuple[Placement, Victims]:
        """Who has to go of those that were chosen, or others in their place that cost less together.

        Those are of the same ranks, or of such as come before. Who has more to do goes for that, at any cost.
        """
        placement, victims = self.thinned(chosen, placement)
        if any(self._is_for_its_work(one) for one in victims.values()):
            return placement, victims
        ranks = {rank: n for n, rank in enumerate(dict.fromkeys(map(_rank, considered)))}
        highest = max(ranks[_rank(one)] for one in victims.values())
        others = [
            x for x in considered if ranks[_rank(x)] <= highest and not self._is_for_its_work(x)
        ]
        costs_ms = self._costs_ms(others)
        most_ms = max(costs_ms[key] for key in victims)
        if not any(costs_ms[x.job_id] < most_ms for x in others if x.job_id not in victims):
            return placement, victims
        self._supposed.all_stay()
        others.sort(key=lambda x: costs_ms[x.job_id])
        found, there = self.seek(others[:MOST_OTHERS])
        if there is not None:
            there, found = self.thinned(found, there)
            if sum(map(costs_ms.__getitem__, found)) < sum(map(costs_ms.__getitem__, victims)) and (
                _by_rank(found, ranks) <= _by_rank(victims, ranks)
            ):
                return there, found
        self._supposed.all_stay()
        self._supposed.end(victims.values())
        return placement, victims

    def _costs_ms(self, jobs: Iterable[Job]) -> dict[str, int]:
        now_ms, settings = self._turn.now_ms, self._turn.state.settings
        return {one.job_id: cost_ms(one, now_ms, settings=settings) for one in jobs}

    def _is_for_its_work(self, victim: Job) -> bool:
        """Whether a job goes as it has more to do, and for nothing else."""
        job = self._job
        return victim.queue_name == job.queue_name and victim.standing >= job.standing

    def instead(self, victims: Victims, others: list[Job]) -> list[str]:
        """Who would go if only others might; nobody where they are not enough. Victims are supposed to
        have ended before and afterwards."""
        self._supposed.all_stay()
        chosen, placement = self.seek(others)
        found: Victims = {}
        if placement is not None:
            found = self.least(chosen, placement, considered=others)[1]
        self._supposed.all_stay()
        self._supposed.end(victims.values())
        return [*found]


def _rank(victim: Job) -> tuple[str, int]:
    """Those of one rank may be taken in place of each other."""
    return victim.queue_name, victim.standing


def _by_rank(victims: Victims, ranks: dict[tuple[str, int], int]) -> list[int]:
    """What compares sets of victims by who is in them that comes last."""
    return sorted((ranks[_rank(one)] for one in victims.values()), reverse=True)


def _on_nodes(chosen: Victims, placement: Placement) -> Victims:
    """Those with a part on one of the nodes."""
    nodes = {spot.node_id for spot in placement}
    return {
        key: one
        for key, one in chosen.items()
        if one.attempt and any(share.node_id in nodes for share in one.attempt.shares)
    }


def _candidates(turn: Turn, job: Job, *, queue: Queue, settings: CoreSettings) -> Iterator[Job]:
    """Who may be preempted for the job: who borrows what it is entitled to, then in its own queue."""
    yield from _borrowers(turn, job, settings=settings)
    if queue.preempts:
        yield from _rivals(turn, job, queue=queue, settings=settings)


def _borrowers(turn: Turn, job: Job, *, settings: CoreSettings) -> Iterator[Job]:
    """Attempts of queues that hold more than their guarantee, beside one above the job that holds less.

    None of them is left with less than it is guaranteed itself.
    """
    state, shares = turn.state, turn.state.shares
    if not shares.guarantees:
        return
    path = shares.path(job.queue_name)
    need = milli_of(job)
    meets = {above for name, above in pairwise(path) if shares.is_entitled(name, need)}
    if not meets:
        return
    taken: Counter[str] = Counter()
    ways = {name: _lent_to(shares, name, path=path) for name, _ in state.running.levels}
    lenders = {
        name: shares.borrowed_milli(name)
        for name, (way, met) in ways.items()
        if way and met in meets
    }
    ranks = (rank for rank in state.running.levels if rank[0] in lenders)
    for rank in sorted(ranks, key=lambda x: (-lenders[x[0]], x[1], x)):
        lent_to, _ = ways[rank[0]]
        for job_id in state.running.worst(rank, 0):
            victim = state.jobs[job_id]
            given = milli_of(victim)
            if any(shares.borrowed_milli(name) - taken[name] < given for name in lent_to):
                continue
            if not is_spared(state, victim, now_ms=turn.now_ms):
                taken.update(dict.fromkeys(lent_to, given))
                yield victim


def _lent_to(shares: Shares, name: str, *, path: tuple[str, ...]) -> tuple[list[str], str]:
    """(The queues above and of a name that are not above the path's, the first that is)."""
    own = shares.path(name)
    beside = [*takewhile(lambda one: one not in path, own)]
    return beside, own[len(beside)]


def _rivals(turn: Turn, job: Job, *, queue: Queue, settings: CoreSettings) -> Iterator[Job]:
    """Attempts of the job's queue: the lowest priority first, then those with most to do."""
    state = turn.state
    for standing in range(job.standing):
        for job_id in state.running.worst((job.queue_name, standing), 0):
            victim = state.jobs[job_id]
            if not is_spared(state, victim, now_ms=turn.now_ms):
                yield victim
    if queue.order is not Order.SHORTEST:
        return
    own_key = key_of(job, queue, work_ms=job.work_ms)
    for job_id in state.running.worst((job.queue_name, job.standing), least_level(job)):
        victim = state.jobs[job_id]
        key = key_of(victim, queue, work_ms=state.work_ms(victim, now_ms=turn.now_ms))
        spared = is_spared(state, victim, now_ms=turn.now_ms)
        if key > own_key and not spared:
            yield victim


def preempt(turn: Turn, victim: Job, *, job: Job, most: int, room: tuple[Share, ...] = ()) -> None:
    """Lets a victim give its devices to a job; with `room` only once a checkpoint is proven, to go on
    there."""
    assert victim.attempt is not None
    victim = turn.edit(
        victim,
        Reason.PREEMPTED,
        attempt=replace(victim.attempt, makes_room_for=job.job_id),
        preempted_at_ms=(*victim.preempted_at_ms, turn.now_ms)[-most:],
        room=room,
    )
    on_timeout = OnTimeout.KEEP_RUNNING if room else OnTimeout.STOP
    save_and_stop(turn, victim, cause=StopCause.PREEMPTED, on_timeout=on_timeout)


class DeviceCount:
    """A quick no: counts devices that would be free, with those kept, before a placement is sought."""

    def __init__(self, state: ClusterState, job: Job, *, kept: tuple[Share, ...]) -> None:
        self._state = state
        self._demand = job.demand
        self._per_node = job.demand.device_count // (
            job.demand.node_count or job.demand.device_count
        )
        self._on_node: dict[str, int] = {}
        self._left = job.demand.device_count - sum(state.free.devices_by_type.values())
        self._nodes: set[str] = set()
        self._least = 1  # of these nodes there must be; one, because it does not fit as it is
        if job.demand.node_count:
            rooms = state.free.rooms.values()
            fit = sum(room.device_count >= self._per_node for room in rooms)
            self._least = max(1, job.demand.node_count - fit)
        for share in kept:
            self._left -= len(share.device_ids)
            self._nodes.add(share.node_id)

    def add(self, victim: Job) -> None:
        assert victim.attempt is not None
        for share in victim.attempt.shares:
            count = len(share.device_ids)
            self._left -= count
            known = self._on_node.get(share.node_id)
            if known is None:
                room = self._state.free.rooms.get(share.node_id)
                known = room.device_count if room else 0
            self._on_node[share.node_id] = known + count
            if known + count >= self._per_node:
                self._nodes.add(share.node_id)

    def may_fit(self) -> bool:
        return self._left <= 0 and len(self._nodes) >= self._least


def is_sound(state: ClusterState, share: Share) -> bool:
    """Whether the node takes jobs and all of the devices are there and healthy."""
    node = state.nodes.get(share.node_id)
    if node is None or node.drain or node.unreachable_since_ms or node.node_id in state.planned:
        return False
    healthy = {device.device_id for device in node.offer.devices if device.healthy}
    return healthy.issuperset(share.device_ids) and not node.health.bars(share.device_ids)


def is_held(state: ClusterState, share: Share, *, demand: Demand) -> bool:
    """Whether others still have so much of one of the devices that the share is not free."""
    if state.doubt.bars(share.node_id):
        return True
    there = [lease for lease in state.leases_on(share.node_id) if not lease.is_ended]
    if any(demand.exclusive or lease.exclusive for lease in there):
        return True
    left = dict.fromkeys(share.device_ids, WHOLE - share.thousandths)
    for lease in there:
        for device_id in lease.device_ids:
            if device_id in left:
                left[device_id] -= lease.thousandths
    return min(left.values()) < 0
