"""The live records once more, and the questions that copies of them answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from coordinator.core.core import Core
from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.explain import Change, alter, changes, explain
from coordinator.core.forecast import Forecast, Limits, settings_for
from coordinator.core.outlook import outlook
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, JobStatus
from coordinator.core.settings import CoreSettings
from coordinator.core.whatif import emptying
from coordinator.forecast.apart import apart
from coordinator.forecast.calibration import Calibration
from coordinator.forecast.terms import (
    Emptied,
    Empty,
    Explain,
    Explained,
    Foreseen,
    Simulate,
    Simulated,
    Sooner,
)

AHEAD = Limits(steps=150)  # for the job that is asked about
CHANGED = Limits(steps=40)  # for each change of it
ALL = Limits(steps=5_000)  # for all that wait
AT_ONCE = 2
EXPLAIN_S = 3.0
FORESEE_S = 10.0
EMPTY_S = 4.0
SIMULATE_S = 9.0
MOST_SOONER = 8
MOST_AFTER = 8
WORTH_MS = 60_000
WORTH_PART = 0.9  # of the wait as it is; a change that saves less is not worth telling

Waits = tuple[int | None, tuple[str, ...]]


class Replica:
    """Follows the live state; every question is to be asked on a copy, but for `note`."""

    def __init__(self, settings: CoreSettings) -> None:
        self.core = Core(settings_for(settings))
        self.calibration = Calibration()
        self._foreseen: dict[str, int] = {}  # by the newest look at all jobs, uncorrected

    def feed(self, events: Iterable[Event]) -> None:
        """Takes over what has changed."""
        for event in events:
            self.core.state.apply(event)
            if isinstance(event, Retired):
                self.calibration.forget(event.id)
            elif (
                isinstance(event, Changed)
                and isinstance(event.record, Job)
                and event.record.status is not JobStatus.QUEUED
            ):
                self._learn(event.record, event)

    def settle(self) -> None:
        """Takes what waits to have been looked at: the scheduler that lives has done so."""
        self.core.follow()

    def note(self, foreseen: Foreseen, now_ms: int) -> Foreseen:
        """Remembers what was foretold, to learn from what comes, and corrects it by what was learnt."""
        self._foreseen = foreseen.starts_ms
        corrected = {}
        for job_id, at_ms in foreseen.starts_ms.items():
            wait_ms = at_ms - now_ms
            self.calibration.tell(job_id, now_ms, wait_ms=wait_ms)
            corrected[job_id] = now_ms + self.calibration.range_ms(wait_ms, now_ms)[0]
        return Foreseen(corrected)

    def foresee(self, now_ms: int) -> Foreseen:
        """When the waiting jobs will start, uncorrected, as far as can be seen in time. Uses the state
        up."""
        end_s = time.monotonic() + FORESEE_S
        forecast = Forecast(self.core, now_ms)
        forecast.run(limits=ALL, until=lambda: time.monotonic() >= end_s)
        return Foreseen(forecast.starts_ms)

    def explain(self, question: Explain) -> Explained | None:
        """Why a job waits and what would help; None where it is not live. Uses the state up."""
        state, now_ms = self.core.state, question.now_ms
        job = state.jobs.get(question.job_id)
        if job is None:
            return None
        explanation = explain(state, job, now_ms=now_ms)
        if job.status not in (JobStatus.QUEUED, JobStatus.PENDING):
            return Explained(explanation=explanation)
        wishes = changes(state, job) if job.status is JobStatus.QUEUED else []
        forecast = Forecast(self.core, now_ms)  # made once; each copy goes on with it by itself
        works: list[Callable[[], Waits]] = [partial(_waits, forecast, job, None)]
        works += [partial(_waits, forecast, job, one) for one in wishes]
        asis, *changed = apart(works, at_once=AT_ONCE, limit_s=EXPLAIN_S)
        wait_ms, after_job_ids = asis or (None, ())
        changed_ms = [one[0] if one else None for one in changed]
        if wait_ms is None and job.job_id in self._foreseen:
            wait_ms = max(0, self._foreseen[job.job_id] - now_ms)  # too far ahead to look at again
        found = [
            Sooner(wish.text, one_ms)
            for wish, one_ms in zip(wishes, changed_ms, strict=True)
            if one_ms is not None and _is_worth(one_ms, wait_ms)
        ]
        found.sort(key=lambda one: one.wait_ms)
        range_ms: tuple[int | None, int | None] = (None, None)
        if wait_ms is not None:
            range_ms = self.calibration.range_ms(wait_ms, now_ms)
        return Explained(
            explanation=explanation,
            wait_p50_ms=range_ms[0],
            wait_p90_ms=range_ms[1],
            sooner=tuple(found[:MOST_SOONER]),
            after_job_ids=after_job_ids[:MOST_AFTER],
        )

    def empty(self, question: Empty) -> Emptied | None:
        """How nodes are emptied; None where it took too long to tell. Uses the state up."""
        one = partial(
            emptying,
            self.core,
            question.now_ms,
            node_ids=question.node_ids,
            wish=question.wish,
        )
        works = [partial(one, lucky=True), partial(one, lucky=False)]
        likely, late = apart(works, at_once=AT_ONCE, limit_s=EMPTY_S)
        if likely is None or late is None:
            return None
        return Emptied(likely, late)

    def simulate(self, question: Simulate) -> Simulated | None:
        """What changes come to; None where it took too long to tell. Uses the state up."""
        one = partial(outlook, self.core, question.now_ms, horizon_ms=question.horizon_ms)
        works = [partial(one, changes=()), partial(one, changes=question.changes)]
        before, after = apart(works, at_once=AT_ONCE, limit_s=SIMULATE_S)
        return None if before is None or after is None else Simulated(before, after)

    def _learn(self, job: Job, event: Changed) -> None:
        if event.cause is Reason.PLACED:
            self.calibration.start(job.job_id, event.at_ms)
        elif job.status in (JobStatus.PAUSED, JobStatus.PENDING):
            self.calibration.forget(job.job_id)


def _waits(forecast: Forecast, job: Job, change: Change | None) -> Waits:
    """How long a job waits, and with whose ends it starts."""
    now_ms = forecast.now_ms
    if change is not None:
        alter(forecast.core.state, change, now_ms=now_ms)
    at_ms = forecast.run(limits=CHANGED if change else AHEAD, wanted=job.job_id)
    return None if at_ms is None else at_ms - now_ms, forecast.after(job.job_id)


def _is_worth(changed_ms: int, wait_ms: int | None) -> bool:
    if wait_ms is None:
        return True
    return changed_ms <= wait_ms * WORTH_PART and wait_ms - changed_ms >= WORTH_MS
