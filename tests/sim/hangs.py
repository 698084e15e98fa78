"""Trainings that stand still while their ranks live, what agents see of that, and what must come of it.

How far a training has come follows from when it began, when it stopped coming on, and whether all of its
gang still runs: it is counted when somebody looks, and takes no events. Few worlds have any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from coordinator.core.decision import Changed
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, OnHang
from node_agent.core.cadence import Cadence
from tests.sim.clock import SECOND, Loop
from tests.sim.plans import Plan
from tests.sim.truth import Asked, JobChecker, SimFailure

WORLDS = 6  # one in so many has any
REPORT_MS = 4 * SECOND  # of a training that comes on
LIMIT_MS = 60 * SECOND  # silence that its job calls too long
LOOK_MS = 3 * SECOND
EARLY = 0.8  # clocks of nodes go a tenth wrong


def with_hangs(plans: Mapping[str, Plan], rng: Random) -> dict[str, Plan]:
    """The same jobs, of which some are watched, and some of these stand still in some attempts."""
    if rng.randrange(WORLDS):
        return dict(plans)
    found = {}
    for name, plan in plans.items():
        policy = replace(plan.policy, on_hang=rng.choice(tuple(OnHang)))
        stalls = rng.choice((0, 1, 1, 2, 99))
        is_watched = rng.random() < 0.5
        watched = replace(plan, policy=policy, watched=True, stalls=stalls)
        found[name] = watched if is_watched else plan
    return found


def never_ends(plan: Plan) -> bool:
    """Whether it goes on until somebody stops it."""
    return plan.hangs or (plan.stalls > 0 and plan.policy.on_hang is OnHang.REPORT)


@dataclass(slots=True)
class Course:
    """How far rank 0 of one lease comes; times of the world."""

    began_ms: int
    stalls_ms: int | None  # when it stands still; None for never
    grant: tuple[str, int, int]  # job, attempt, epoch

    def reports(self, asked: Asked, now_ms: int) -> int:
        """How often it has reported progress by now: its peers are gone, and it waits for them."""
        ends = (now_ms, self.stalls_ms, asked.parted.get(self.grant))
        last_ms = min(at_ms for at_ms in ends if at_ms is not None)
        return max(0, last_ms - self.began_ms) // REPORT_MS


class Look:
    """What an agent knows of the progress of one lease since it started."""

    def __init__(self) -> None:
        self.cadence = Cadence()
        self.silent_since_ms = 0
        self._reports = 0

    def look(self, reports: int, now_ms: int) -> bool:
        """Looks at it; whether there is anything new to tell."""
        cadence = self.cadence.look(now_ms)
        self.cadence = cadence.report(now_ms) if reports > self._reports else cadence
        self._reports = reports
        before = self.silent_since_ms
        self.silent_since_ms = max(0, self.cadence.silent_since_ms(LIMIT_MS))
        return bool(before) != bool(self.silent_since_ms)


class HungIsHung(JobChecker):
    """Only what stands still is said to hang, and what is done then is what its job asks for."""

    def __init__(self, asked: Asked, loop: Loop, seen: Callable[..., None]) -> None:
        super().__init__()
        self._asked = asked
        self._loop = loop
        self._seen = seen

    def changed(self, event: Changed, job: Job, *, before: Job | None) -> None:
        if event.cause is Reason.HANGS and job.attempt is not None:
            since_ms = self._asked.hung.get((job.job_id, job.attempt.number))
            if since_ms is None or self._loop.now_ms - since_ms < EARLY * LIMIT_MS:
                raise SimFailure(f"{job.job_id} comes on and is said to hang", job.job_id)
            self._seen("hang", job.policy.on_hang.value)
        if before is None or job.hung_step == before.hung_step:
            return
        if job.policy.on_hang is OnHang.REPORT:
            raise SimFailure(f"{job.job_id} is ended for a hang, and was only to tell", job.job_id)
        self._seen("hang", "costs" if job.failures_count > before.failures_count else "is free")
