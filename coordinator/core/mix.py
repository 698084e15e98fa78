"""What jobs ask for, as learnt from those that were submitted; by this a place is chosen.

A count of demands is kept as one record, of bounded size, in which the old fades: when the counts add up to
more than MOST_JOBS all of them are halved. It is written after every sixteen jobs at first, and ever more
seldom as it knows more, so that it costs a submit nothing to speak of. What is searched by follows from
the record and from how many devices there are, in steps; so it is a function of the live records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from math import isqrt

from coordinator.core.capacity import ANY, Capacity
from coordinator.core.fragments import NO_DISTINCTION, Fragments, Want
from coordinator.core.placement import need_of, rank_count
from coordinator.core.reasons import Reason
from coordinator.core.records import Demand, Mix
from coordinator.core.room import DeviceClass, least_of, level_of
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn

MOST_DEMANDS = 256
MOST_JOBS = 16_384
LEAST_NEWS = 16
NEWS_PART = 8  # of what is known must be new, to be learnt
JOB = 16  # weight of a job of one device
NO_JOB = 4  # of one want of NO_DISTINCTION


def learnt(mix: Mix, demands: Iterable[Demand], *, through_sequence: int) -> Mix:
    """The record with more jobs in it. Labels are left out: they say where, not how much."""
    counts = dict(mix.demands)
    for demand, count in Counter(demands).items():
        where = demand.labels or demand.within
        plain = replace(demand, node_selector=(), within="", exclusive=False) if where else demand
        counts[plain] = counts.get(plain, 0) + count
    if sum(counts.values()) > MOST_JOBS:
        counts = {demand: count // 2 for demand, count in counts.items() if count > 1}
    often = sorted(counts.items(), key=lambda one: -one[1])  # equal ones stay in their order
    due = max(LEAST_NEWS, sum(counts.values()) // NEWS_PART)
    kept = tuple(often[:MOST_DEMANDS])
    return Mix(through_sequence=through_sequence, demands=kept, due_count=due)


def learn(turn: Turn) -> None:
    """Takes over the newest jobs, once there are enough of them."""
    state = turn.state
    if len(state.unlearnt) >= state.mix.due_count:
        demands = [state.jobs[job_id].demand for job_id in state.unlearnt]
        mix = learnt(state.mix, demands, through_sequence=state.last_sequence)
        turn.put(mix, Reason.DEMANDS_LEARNT)


def look_again(state: ClusterState) -> None:
    """Lets searches for free room go by what the records say now."""
    basis = (state.mix, *_supply_of(state.total))
    if state.free.searched_by != basis:
        state.free.search_by(fragments_of(state.mix, state.total), basis=basis)


def fragments_of(mix: Mix, total: Capacity) -> Fragments:
    """What to search by, where jobs ask for this of a cluster that has so much in all."""
    supply = _supply_of(total)
    wants = [(_want(demand, total), _weight(demand) * count) for demand, count in mix.demands]
    basis = [(want, NO_JOB * weight) for want, weight in NO_DISTINCTION]
    return Fragments((*basis, *wants), {one: least_of(level) for one, level, _ in supply})


def _weight(demand: Demand) -> int:
    """Of one job. Who asks for more devices finds room less easily: it grows with their fourth root."""
    return isqrt(isqrt(JOB**4 * demand.device_count))


def _supply_of(total: Capacity) -> tuple[tuple[DeviceClass, int, int], ...]:
    """Of each class: how many devices there are, in steps, and how many at most on one node."""
    shelves = [(one, total.shelves[one, ANY]) for one in total.classes]
    return tuple(
        (one, level_of(shelf.device_count), max(shelf.node_counts)) for one, shelf in shelves
    )


def _want(demand: Demand, total: Capacity) -> Want:
    """What a demand takes of one node: of one of its own number, or of one as large as there are."""
    ranks = rank_count(demand)
    if demand.node_count:
        ranks = max(1, ranks // demand.node_count)
    else:
        shelves = [
            total.shelves[one, ANY] for _, found in total.classes_for(demand) for one in found
        ]
        most = max((max(shelf.node_counts) for shelf in shelves), default=ranks)
        ranks = max(1, min(ranks, most // demand.devices_per_rank))
    return Want(need_of(demand, ranks), demand.device_types, demand.device_memory_bytes)
