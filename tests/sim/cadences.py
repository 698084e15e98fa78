"""Trainings that hear no ask: they save by themselves, as often as they do, and are waited for if that is near.

Few worlds have any. What they really do is known there, so what the coordinator makes of their checkpoints
can be held against it: who was to save soon, and could be known to, is not stopped before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from coordinator.core.decision import Changed
from coordinator.core.records import Ask, Job, JobStatus, StopCause
from coordinator.core.saving import PATIENT
from tests.sim.clock import SECOND
from tests.sim.coordinator import SETTINGS
from tests.sim.kept import RecordsKept
from tests.sim.plans import Plan
from tests.sim.swarm import Swarm
from tests.sim.truth import Asked, JobChecker, SimFailure

if TYPE_CHECKING:
    from tests.sim.world import World

WORLDS = 5  # one in so many has any
EVERY_S = (10, 20, 30)
FAULTS_KEPT = 0.3
RUNS = 5  # intervals
HURRY_MS = 30 * SECOND
LOOK_MS = 2 * SECOND
GRACES_S = (0, 1, 3)
CLEARLY = 0.6  # of an interval: who has come so far is nearer to its next one than to its last
EXACT_MS = 2 * SECOND  # what reports and commits take


def calmer(swarm: Swarm, rng: Random) -> Swarm:
    """The same with few of its faults, so that trainings come to save more than once."""
    few = {name: rate for name, rate in swarm.faults.items() if rng.random() < FAULTS_KEPT}
    return replace(swarm, faults=few)


def with_cadences(plans: Mapping[str, Plan], rng: Random) -> dict[str, Plan]:
    """The same jobs, of which most run for longer and save so often, whoever asks."""
    found = {}
    for name, plan in plans.items():
        policy = replace(
            plan.policy,
            grace_ms=rng.choice(GRACES_S) * SECOND,
            max_runtime_ms=0,
            preemptible=True,
            requeue_on_preemption=True,
        )
        every_ms = rng.choice(EVERY_S) * SECOND
        deaf = replace(
            plan,
            policy=policy,
            checkpoints=True,
            every_ms=every_ms,
            duration_ms=RUNS * every_ms,
            fails=0,
        )
        is_deaf = rng.random() < 0.6 and not plan.watched
        found[name] = deaf if is_deaf else plan
    return found


def hurry(world: World, rng: Random) -> None:
    """Sooner or later somebody wants the devices of each training of which it is known how often it saves."""
    wanted: set[tuple[str, int]] = set()

    def again() -> None:
        for job in world.coordinator.jobs():
            number = job.attempt.number if job.attempt is not None else 0
            known = sum(x.attempt == number for x in job.checkpoints) > 1
            if known and job.status is JobStatus.TRAINING and (job.job_id, number) not in wanted:
                wanted.add((job.job_id, number))
                act = partial(world.people.preempt, job.job_id)
                world.loop.after(rng.randint(0, HURRY_MS), act)
        if not world.storm.is_over:
            world.loop.after(LOOK_MS, again)

    world.loop.after(LOOK_MS, again)


@dataclass(frozen=True, slots=True)
class _Wait:
    """An attempt that is to give way."""

    ask: Ask
    next_ms: int  # when it really saves, which could be known; 0 where it could not


class NearIsAwaited(JobChecker):
    """Who is preempted has its grace, and longer only if a checkpoint is near; and then has that."""

    def __init__(
        self,
        asked: Asked,
        seen: Callable[..., None],
        *,
        plan_of: Callable[[str], Plan],
        plain_clocks: bool,
    ) -> None:
        super().__init__()
        self._asked = asked
        self._seen = seen
        self._plan_of = plan_of
        self._plain_clocks = plain_clocks
        self._waits: dict[tuple[str, int], _Wait] = {}

    def rewound(self, store: RecordsKept) -> None:
        super().rewound(store)
        self._waits.clear()

    def changed(self, event: Changed, job: Job, *, before: Job | None) -> None:
        if job.attempt is None:
            return
        key = job.job_id, job.attempt.number
        was = before.attempt.ask if before is not None and before.attempt is not None else None
        ask = job.attempt.ask
        if ask != was:
            wait = self._waits.pop(key, None)
            if ask is not None and ask.cause is StopCause.PREEMPTED and was in (None, PATIENT):
                self._begins(job, ask, now_ms=event.at_ms)
            elif wait is not None and job.attempt.stop is StopCause.PREEMPTED:
                self._is_over(job, wait, now_ms=event.at_ms)

    def _begins(self, job: Job, ask: Ask, *, now_ms: int) -> None:
        grace_ms = job.policy.grace_ms
        wait_ms = ask.due_ms - now_ms
        if not grace_ms <= wait_ms <= max(grace_ms, SETTINGS.near_checkpoint_ms):
            text = f"{job.job_id} is waited for for {wait_ms} ms; its grace is {grace_ms} ms"
            raise SimFailure(text, job.job_id)
        assert job.attempt is not None
        if wait_ms > grace_ms:
            self._seen("near checkpoint", "is awaited")
        self._waits[job.job_id, job.attempt.number] = _Wait(ask, self._next_ms(job, now_ms=now_ms))

    def _next_ms(self, job: Job, *, now_ms: int) -> int:
        """When the training really saves next, if that is clearly near, and all is known that tells it."""
        assert job.attempt is not None
        number, every_ms = job.attempt.number, self._plan_of(job.job_id).every_ms
        really_ms = self._asked.saves.get((job.job_id, number), [])
        known_ms = [x.created_at_ms for x in job.checkpoints if x.attempt == number]
        known = len(known_ms) > 1 and len(known_ms) == len(really_ms[-2:])
        pairs = zip(known_ms[-2:], really_ms[-2:], strict=False)
        if not known or not self._plain_clocks or any(abs(a - b) > EXACT_MS for a, b in pairs):
            return 0
        next_ms = really_ms[-1] + every_ms
        limit_ms = job.policy.max_runtime_ms
        if limit_ms and job.attempt.started_at_ms + limit_ms < next_ms + every_ms:
            return 0
        is_near = now_ms - really_ms[-1] > CLEARLY * every_ms and now_ms < next_ms
        return 0 if job.attempt.silent_since_ms or not is_near else next_ms

    def _is_over(self, job: Job, wait: _Wait, *, now_ms: int) -> None:
        if now_ms < wait.next_ms and now_ms >= wait.ask.due_ms:
            raise SimFailure(f"{job.job_id} is stopped though it saves soon", job.job_id)
        if wait.next_ms:
            self._seen("near checkpoint", "in time" if now_ms < wait.ask.due_ms else "too late")
