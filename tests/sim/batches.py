"""Several jobs in one request: who submits them so, and what must come of it. Few worlds have any."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

from coordinator.core.commands import Caller, Command, SubmitJob, SubmitJobs
from coordinator.core.decision import Changed, Event, Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Job
from tests.sim.kept import RecordsKept
from tests.sim.people import People, Wish
from tests.sim.plans import Plan
from tests.sim.truth import Checker, SimFailure, Tried, Truth

NOBODY = "nobody"  # no job has this id


def in_batches(plans: Iterable[Plan], rng: Random) -> list[list[Plan]]:
    """The same jobs, of which about half come with others of their tenant."""
    alone, by_tenant = [], dict[str, list[Plan]]()
    for plan in plans:
        if rng.random() < 0.5:
            by_tenant.setdefault(plan.tenant_id, []).append(plan)
        else:
            alone.append([plan])
    for tenant in sorted(by_tenant):
        rest = by_tenant[tenant]
        while rest:
            size = rng.randint(2, 5)
            alone.append(rest[:size])
            rest = rest[size:]
    return alone


class Batches:
    """Those who submit several jobs at once."""

    def __init__(self, people: People, rng: Random, truth: Truth) -> None:
        self._people = people
        self._rng = rng
        self._truth = truth
        self._count = 0

    def submit(self, plans: list[Plan]) -> None:
        """Somebody submits jobs of one tenant together; now and then one of them is refused."""
        self._count += 1
        number, atomic = self._count, self._rng.random() < 0.5
        caller = self._people.caller("batch", plans[0].tenant_id)
        plain = Caller(tenant_id=caller.tenant_id, user_id=caller.user_id)
        jobs = [self._people.submission(plan, plain) for plan in plans]
        if not atomic and self._rng.random() < 0.5:  # it may be asked for by itself as well
            jobs[0] = replace(jobs[0], caller=self._people.caller("batch", caller.tenant_id))
        bad = self._rng.randrange(len(jobs) + 1) if self._rng.random() < 0.3 else None
        if bad is not None:
            policy = replace(jobs[0].policy, depends_on=(NOBODY,))
            wrong = replace(jobs[0], name=f"wrong{number}", policy=policy, caller=plain)
            jobs.insert(bad, wrong)

        def renewed(wish: Wish) -> Command:
            tried = Tried(number, wish.tries, len(jobs), atomic)
            own = [self._people.with_id(job) for job in jobs]
            self._truth.asked.batches.update({job.job_id: tried for job in own})
            return SubmitJobs(caller=caller, jobs=tuple(own), atomic=atomic)

        def heard(reply: Reply | Rejected) -> None:
            told = self._check(reply, jobs, atomic=atomic, bad=bad)
            refused = [job.name for job in jobs if job.name not in told]
            for plan in plans:
                if plan.name in refused:
                    self._people.submit(plan)
            if jobs[0].caller.request_id and jobs[0].name in told:
                self._people.ask("submit", jobs[0])  # under the id that it had in the batch

        self._people.ask("batch", renewed=renewed, heard=heard)

    def _check(
        self, reply: Reply | Rejected, jobs: list[SubmitJob], *, atomic: bool, bad: int | None
    ) -> dict[str, str]:
        """The ids of the accepted jobs, by name. Raises SimFailure."""
        self._truth.looked["batches"] += 1
        if isinstance(reply, Rejected) or len(reply.outcomes) != len(jobs):
            raise SimFailure(f"a batch of {len(jobs)} is answered with {reply}")
        told = {
            job.name: one.job_id
            for job, one in zip(jobs, reply.outcomes, strict=True)
            if one.job_id
        }
        names = {name: self._people.names[id] for name, id in told.items()}
        if any(name != asked for asked, name in names.items()):
            raise SimFailure(f"a batch is answered in another order: {names}", *told.values())
        if bad is not None and reply.outcomes[bad].reason != Reason.DEPENDENCY_NOT_FOUND:
            raise SimFailure(f"{jobs[bad].name} is {reply.outcomes[bad]}")
        if atomic and 0 < len(told) < len(jobs):
            raise SimFailure("a part of an atomic batch is accepted", *told.values())
        for name, job_id in told.items():
            self._people.accepted[name] = job_id
            self._truth.acknowledge("submit", job_id, 0)
        return told


class BatchesWhole(Checker):
    """The jobs of a batch are accepted in one commit, all of them where that was asked, and once."""

    facts = (Job,)

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._accepted: dict[int, list[tuple[Tried, str]]] = {}  # by batch
        self._commit = 0

    def rewound(self, store: RecordsKept) -> None:
        self._accepted.clear()

    def committed(self, event: Event, number: int) -> None:
        if number != self._commit:
            self.settled()
            self._commit = number
        if not isinstance(event, Changed) or event.cause is not Reason.ACCEPTED:
            return
        job = event.record
        tried = self._truth.asked.batches.get(job.job_id) if isinstance(job, Job) else None
        if tried is None or not isinstance(job, Job):
            return
        found = self._accepted.setdefault(tried.number, [])
        if any(other != tried for other, _ in found):
            ids = [id for _, id in found]
            raise SimFailure("one batch is accepted twice", job.job_id, *ids)
        found.append((tried, job.job_id))

    def settled(self) -> None:
        for found in self._accepted.values():
            tried, job_id = found[0]
            if tried.atomic and len(found) != tried.size:
                raise SimFailure(f"{len(found)} jobs of {tried} are accepted", job_id)
