"""What would come of something: forecasts that write down what becomes of jobs.

A Course is written while a forecast runs: when jobs start and where, when they end, which attempts end
before their jobs do, and what is lost by it. What is lost is counted as preemption counts it: the
device-time since the newest proven checkpoint, at most so much for a training that proves checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from coordinator.core.commands import Command
from coordinator.core.core import Core
from coordinator.core.decision import Changed, Event
from coordinator.core.forecast import FORETOLD, Forecast, Limits, Luck
from coordinator.core.records import WHOLE, Job, JobStatus, StopCause
from coordinator.core.ruling import loss_ms
from coordinator.core.saving import PATIENT
from coordinator.core.state import ClusterState

AHEAD = Limits(steps=400)
NINE_IN_TEN = 0.9


class Outcome(StrEnum):
    """What becomes of a job on a node that is drained."""

    ENDS = "ENDS"  # it runs to its end there
    MOVES = "MOVES"  # it leaves after a checkpoint
    FORCED = "FORCED"  # it is stopped; what it has done since its newest checkpoint is lost
    STAYS = "STAYS"  # as far as can be foretold it does not leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Devices are granted."""

    at_ms: int
    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """An attempt ends before its job does. Costs in device-milliseconds."""

    job_id: str
    at_ms: int
    cause: StopCause | None
    forced: bool  # it had to go without a checkpoint, as far as can be foretold
    lost_ms: int
    restart_ms: int  # what starting took this attempt; the next is taken to need as much


class Course:
    """What becomes of each job."""

    def __init__(self) -> None:
        self.starts: dict[str, list[Start]] = {}
        self.ends_ms: dict[str, int] = {}
        self.leavings: list[Leaving] = []
        self._attempts: dict[str, int] = {}  # the newest that has ended, by job
        self._patient: set[str] = set()  # who leaves only once a checkpoint is proven

    def note(self, event: Event) -> None:
        """Takes one fact of the forecast."""
        if not isinstance(event, Changed) or not isinstance(event.record, Job):
            return
        job, attempt = event.record, event.record.attempt
        if attempt is None:
            return
        if attempt.ask is not None:
            (self._patient.add if attempt.ask == PATIENT else self._patient.discard)(job.job_id)
        if job.status is JobStatus.SCHEDULING and attempt.granted_at_ms == event.at_ms:
            starts = self.starts.setdefault(job.job_id, [])
            if not starts or starts[-1].at_ms != event.at_ms:
                node_ids = tuple(share.node_id for share in attempt.shares)
                starts.append(Start(at_ms=event.at_ms, node_ids=node_ids))
        elif attempt.ended_at_ms and self._attempts.get(job.job_id) != attempt.number:
            self._attempts[job.job_id] = attempt.number
            if job.is_final:
                self.ends_ms[job.job_id] = event.at_ms
            else:
                patient = job.job_id in self._patient
                self.leavings.append(_leaving(job, event.at_ms, patient=patient))
                self._patient.discard(job.job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one job of a node; times None where they are not known."""

    job_id: str
    devices: float  # that it holds in all
    outcome: Outcome = Outcome.STAYS
    leaves_ms: int | None = None
    lost_ms: int = 0
    restart_ms: int = 0
    start: Start | None = None  # where it goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class Emptying:
    """What becomes of the jobs of a node, by id, and when the last of them has left."""

    node_id: str
    fates: tuple[Fate, ...] = ()
    empty_ms: int | None = None
    left_ms: int = (
        0  # device-milliseconds of the node until its jobs would have ended by themselves
    )


def emptying(
    core: Core,
    now_ms: int,
    *,
    node_ids: Sequence[str],
    wish: Command | None = None,
    lucky: bool = True,
) -> tuple[Emptying, ...]:
    """How nodes are emptied, or would be with a wish; uses the core up.

    Not lucky is what is not exceeded in nine of ten cases. An unknown node is empty.
    """
    state = core.state
    jobs = {node_id: _jobs_on(state, node_id) for node_id in node_ids}
    left_ms = {
        node_id: _left_ms(state, node_id, jobs=there, now_ms=now_ms)
        for node_id, there in jobs.items()
    }
    course = Course()
    luck = Luck() if lucky else _bad_luck(jobs.values())
    forecast = Forecast(core, now_ms, luck=luck, note=course.note)
    if wish is not None:
        forecast.act(wish)
    gone = _Gone(course, {job.job_id: job for there in jobs.values() for job in there})
    forecast.run(limits=AHEAD, until=gone.is_settled)
    return tuple(
        _emptying(gone, node_id, jobs=there, now_ms=now_ms, left_ms=left_ms[node_id])
        for node_id, there in jobs.items()
    )


def _emptying(
    gone: _Gone, node_id: str, *, jobs: Iterable[Job], now_ms: int, left_ms: int
) -> Emptying:
    fates = tuple(map(gone.fate, jobs))
    leaves_ms = [now_ms, *(fate.leaves_ms for fate in fates)]
    known = [at_ms for at_ms in leaves_ms if at_ms is not None]
    empty_ms = max(known) if len(known) == len(leaves_ms) else None
    return Emptying(node_id=node_id, fates=fates, empty_ms=empty_ms, left_ms=left_ms)


@dataclass(slots=True)
class _Gone:
    """Looks whether all jobs of a node have left and go on elsewhere."""

    course: Course
    jobs: dict[str, Job]
    seen: tuple[int, int, int] = (-1, 0, 0)
    settled: bool = False

    def is_settled(self) -> bool:
        course = self.course
        seen = len(course.ends_ms), len(course.leavings), sum(map(len, course.starts.values()))
        if seen != self.seen:
            self.seen = seen
            self.settled = all(self._is_settled(job_id) for job_id in self.jobs)
        return self.settled

    def fate(self, job: Job) -> Fate:
        devices = job.demand.size / WHOLE
        left = self._left(job.job_id)
        if left is not None:
            return Fate(
                job_id=job.job_id,
                devices=devices,
                outcome=Outcome.FORCED if left.forced else Outcome.MOVES,
                leaves_ms=left.at_ms,
                lost_ms=left.lost_ms,
                restart_ms=left.restart_ms,
                start=self._start(left),
            )
        at_ms = self.course.ends_ms.get(job.job_id)
        outcome = Outcome.STAYS if at_ms is None else Outcome.ENDS
        return Fate(job_id=job.job_id, devices=devices, outcome=outcome, leaves_ms=at_ms)

    def _is_settled(self, job_id: str) -> bool:
        left = self._left(job_id)
        if left is not None:
            return self._start(left) is not None
        return job_id in self.course.ends_ms

    def _left(self, job_id: str) -> Leaving | None:
        return next((one for one in self.course.leavings if one.job_id == job_id), None)

    def _start(self, left: Leaving) -> Start | None:
        starts = self.course.starts.get(left.job_id, ())
        return next((one for one in starts if one.at_ms >= left.at_ms), None)


def _bad_luck(nodes: Iterable[Sequence[Job]]) -> Luck:
    """Of n jobs each has ended by the n-th root of nine in ten, so that all have in nine of ten cases."""
    part: dict[str, float] = {}
    for jobs in nodes:
        for job in jobs:
            own = NINE_IN_TEN ** (1 / len(jobs))
            part[job.job_id] = max(own, part.get(job.job_id, 0.0))
    return Luck(part=part, saves=False)


def _jobs_on(state: ClusterState, node_id: str) -> list[Job]:
    held = {one.job_id for one in state.leases_on(node_id) if not one.is_ended}
    return [state.jobs[job_id] for job_id in sorted(held)]


def _left_ms(state: ClusterState, node_id: str, *, jobs: Iterable[Job], now_ms: int) -> int:
    left = {
        job.job_id: state.estimates.median_left_ms(job, state.age_ms(job, now_ms)) for job in jobs
    }
    leases = (one for one in state.leases_on(node_id) if not one.is_ended)
    return sum(left[x.job_id] * len(x.device_ids) * x.thousandths // WHOLE for x in leases)


def _leaving(job: Job, at_ms: int, *, patient: bool) -> Leaving:
    attempt = job.attempt
    assert attempt is not None
    proven = tuple(x for x in job.checkpoints if not x.checkpoint_id.startswith(FORETOLD))
    forced = bool(attempt.started_at_ms) and not proven and not patient
    known = replace(job, checkpoints=proven) if forced else job
    took_ms = max(0, attempt.started_at_ms - attempt.granted_at_ms)
    return Leaving(
        job_id=job.job_id,
        at_ms=at_ms,
        cause=attempt.stop,
        forced=forced,
        lost_ms=loss_ms(known, at_ms),
        restart_ms=job.demand.size * took_ms // WHOLE,
    )
