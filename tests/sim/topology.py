"""Nodes that stand in racks, behind switches, and gangs that want to be kept within one.

Few worlds have any. A machine is moved now and then: switched off, and on again in another rack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Kind, Node, Pairs
from tests.sim.kept import RecordsKept
from tests.sim.plans import Plan
from tests.sim.truth import Checker, SimFailure

WORLDS = 5  # one in so many has labels
KEYS = ("switch", "rack")


def spots(rng: Random, count: int) -> list[Pairs]:
    """The labels of so many nodes, none in most worlds; some nodes carry no switch."""
    if rng.randrange(WORLDS):
        return [()] * count
    return [spot(rng) for _ in range(count)]


def spot(rng: Random) -> Pairs:
    """Where a node may stand: of two racks with two switches each, one has no switch that is told."""
    rack, switch = rng.choice((("r1", "s1"), ("r1", "s2"), ("r2", "s3"), ("r2", "")))
    return (("rack", rack), ("switch", switch)) if switch else (("rack", rack),)


def with_bonds(plans: Mapping[str, Plan], rng: Random) -> dict[str, Plan]:
    """The same jobs, of which some want all of their nodes within one switch or rack."""
    found = {}
    for name, plan in plans.items():
        key = rng.choice((*KEYS, *KEYS, ""))
        bound = replace(plan, demand=replace(plan.demand, within=key))
        found[name] = bound if plan.demand.device_count > 1 else plan
    return found


class KeptTogether(Checker):
    """All nodes of a gang carry the same value of the label within which it wants to be."""

    facts = (Job, Node, Retired)

    def __init__(self, seen: Callable[..., None]) -> None:
        self._labels: dict[str, dict[str, str]] = {}  # by node
        self._jobs: dict[str, Job] = {}
        self._seen = seen

    def rewound(self, store: RecordsKept) -> None:
        self._labels.clear()
        self._jobs.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Retired):
            if event.kind is Kind.NODE:
                self._labels.pop(event.id, None)
            return
        if not isinstance(event, Changed):
            return
        job = event.record
        if isinstance(job, Job) and job.demand.within:
            before = self._jobs.get(job.job_id)
            if event.cause is Reason.PLACED and job.attempt is not None:
                self._check(job, [share.node_id for share in job.attempt.shares], "is placed")
            if job.room and (before is None or before.room != job.room):
                self._check(job, [share.node_id for share in job.room], "has room")
        self._take(job)

    def _take(self, record: object) -> None:
        if isinstance(record, Job):
            self._jobs[record.job_id] = record
        elif isinstance(record, Node):
            self._labels[record.node_id] = dict(record.offer.labels)

    def _check(self, job: Job, node_ids: list[str], what: str) -> None:
        key = job.demand.within
        values = {self._labels[node_id].get(key) for node_id in node_ids}
        if len(values) != 1 or None in values:
            text = f"{job.job_id} {what} on {node_ids}, which are not within one {key}"
            raise SimFailure(text, job.job_id, *node_ids)
        size = "one node" if len(node_ids) == 1 else "several nodes"
        self._seen("kept within", f"{key}: {size}", what)
