"""Moving attempts closer together, for a job that needs more of one node than is free of any.

Theory of operation. What is free may be enough for a job and yet lie on several nodes. Attempts of its queue
and its standing that must not lose their turn to it can go on elsewhere then: each is asked for a checkpoint,
with devices set aside on which it starts again at once. Nothing is lost by it but the time to save and to
start, so it is only for attempts of which a checkpoint comes: where none is proven within its grace the
attempt stays, the job waits as before, and it is not asked again. An attempt is moved no more often than it
may be preempted.

Nodes are tried on which least has to be moved, a few of them; of one node only who must go does. Only who
runs on one node and would be queued again is moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from coordinator.core.cadence import SAVES, hears
from coordinator.core.known import is_spared
from coordinator.core.placement import Placement, least_on_node
from coordinator.core.records import WHOLE, Job, Share
from coordinator.core.replay import thin
from coordinator.core.ruling import cost_ms
from coordinator.core.state import ClusterState
from coordinator.core.suppose import Supposed
from coordinator.core.turn import Turn

MOST_SEEN = 16  # nodes, of those with most that is free
MOST_TRIES = 8

Movers = dict[str, Job]
Moves = dict[str, tuple[Share, ...]]
"""Who goes on where, by job."""
Found = tuple[Placement, Movers, Moves]


class Moving:
    """Seeks who has to go on elsewhere so that a job fits, on a supposed state."""

    def __init__(self, turn: Turn, job: Job, *, supposed: Supposed) -> None:
        self._turn = turn
        self._state = turn.state
        self._job = job
        self._supposed = supposed
        self._least = least_on_node(job.demand)

    def seek(self, victims: Movers) -> Found | None:
        """Where the job runs, who of the victims and others has to go for it, and who of them where to.

        None where that is not found. Victims may lose their turn to the job; they go nowhere.
        """
        demand, supposed = self._job.demand, self._supposed
        count = sum(one.demand.device_count for one in victims.values())
        free = self._state.free.devices_by_type
        if (
            demand.thousandths < WHOLE
            or sum(free.get(x, 0) for x in demand.device_types or free) + count
            < demand.device_count
        ):
            return None
        supposed.all_stay()
        supposed.end(victims.values())
        supposed.lay()
        nodes = [*self._nodes(victims)]
        width = max(1, max(1, demand.node_count) - self._roomy())
        for first in range(min(MOST_TRIES, len(nodes) - width + 1)):
            found = self._empty(nodes[first : first + width], victims)
            if found is not None:
                return found
            supposed.all_stay()
            supposed.end(victims.values())
        return None

    def _empty(self, nodes: Iterable[Movers], victims: Movers) -> Found | None:
        """Tries it with who has to go gone from some nodes, and then lets those victims stay who need not go,
        first who would lose most."""
        movers = {key: one for there in nodes for key, one in there.items()}
        self._supposed.end(movers.values())
        if self._try({}) is None:
            return None
        now_ms, settings = self._turn.now_ms, self._state.settings
        going = movers | victims
        losses_ms = {key: cost_ms(one, now_ms, settings=settings) for key, one in going.items()}
        for key in sorted(movers, key=lambda x: (-movers[x].demand.device_count, -losses_ms[x], x)):
            if self._stay([going[key]], {}):
                del going[key], movers[key]
        found = self._try(movers)
        if found is None:
            return None
        nodes_used = {share.node_id for shares in found[1].values() for share in shares}
        nodes_used |= {spot.node_id for spot in found[0]}
        far = [one for one in victims.values() if nodes_used.isdisjoint(_nodes_of(one))]
        if without := self._stay(far, movers):
            found, going = without, {x: y for x, y in going.items() if y not in far}

        def may_stay(key: str) -> bool:
            nonlocal found
            without = self._stay([going[key]], movers)
            if without is None:
                return False
            found = without
            del going[key]
            return True

        thin({x: losses_ms[x] for x in victims if x in going}, may_stay)
        placement, moves = found
        return placement, going, moves

    def _stay(self, some: Sequence[Job], movers: Movers) -> tuple[Placement, Moves] | None:
        """Lets some stay if the job and all movers find places even so, and answers those."""
        for one in some:
            self._supposed.stay(one)
        found = self._try(movers)
        if found is None:
            self._supposed.end(some)
        return found

    def _try(self, movers: Movers) -> tuple[Placement, Moves] | None:
        """Where the job runs and they go on, on what is free now; None where not all find a place."""
        supposed, moves = self._supposed, {}
        placement = supposed.place(self._job.demand)
        if placement is None:
            return None
        supposed.keep(self._job.job_id, [spot.share() for spot in placement])
        for one in sorted(movers.values(), key=lambda x: (-x.demand.device_count, x.job_id)):
            (own,) = _nodes_of(one)
            found = supposed.place(one.demand, avoid=own)
            if found is None or any(spot.node_id == own for spot in found):
                break
            moves[one.job_id] = tuple(spot.share() for spot in found)
            supposed.keep(one.job_id, moves[one.job_id])
        supposed.keep_nothing()
        return (placement, moves) if len(moves) == len(movers) else None

    def _roomy(self) -> int:
        """How many nodes have room for a part of the job without anybody being moved."""
        rooms = self._state.free.rooms.values()
        if self._job.demand.node_count <= 1:
            return 0
        return sum(room.device_count >= self._least for room in rooms)

    def _nodes(self, victims: Mapping[str, Job]) -> Iterator[Movers]:
        """Nodes that have room once who may be moved is gone: those movers, from where least has to be."""
        free = self._state.free
        for node_id, count in free.fullest(self._job.demand, below=self._least, most=MOST_SEEN):
            movers = self._movers(node_id, victims)
            held = sum(one.demand.device_count for one in movers.values())
            if movers and count + held >= self._least:
                yield movers

    def _movers(self, node_id: str, victims: Mapping[str, Job]) -> Movers:
        state, rank = self._state, (self._job.queue_name, self._job.standing)
        found: Movers = {}
        for lease_id in sorted(state.leases_of_node.get(node_id, ())):
            job_id = state.leases[lease_id].job_id
            filed = state.running.filed.get(job_id)
            if filed is None or filed.level is None or filed.rank != rank or job_id in victims:
                continue
            one = state.jobs[job_id]
            if (
                len(_nodes_of(one)) == 1
                and one.demand.thousandths == WHOLE
                and one.status in SAVES
                and hears(one)
                and _has_answered(state, one)
                and one.policy.requeue_on_preemption
                and not is_spared(state, one, now_ms=self._turn.now_ms)
            ):
                found[job_id] = one
        return found


def _has_answered(state: ClusterState, job: Job) -> bool:
    """Whether the attempt has proven a checkpoint whenever it was asked for one."""
    (first,) = state.attempt_leases(job)
    return first.saved >= first.save


def _nodes_of(job: Job) -> tuple[str, ...]:
    return tuple(share.node_id for share in job.attempt.shares) if job.attempt else ()
