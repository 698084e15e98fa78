"""Answers why jobs wait, and when they start, from a look ahead that is kept.

Theory of operation. Why a job waits is read from the replica as it is now. When it starts, and when it
would if it had been asked for otherwise, comes from the newest look ahead (ahead.py). A look that costs
little is made anew before the answer where anything has changed since; one that costs much is kept, made
anew in the background, and the answer says how old it is.

Changed jobs are tried one by one, the least change first. An answer does not wait for all of them: it says
how many are not tried yet. Those are tried all the same, and are told to who asks again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from coordinator.core.explain import Change, Explanation, changes, explain
from coordinator.core.known import is_in_line
from coordinator.core.records import Job, JobStatus
from coordinator.forecast.ahead import Ahead, Start
from coordinator.forecast.replica import Replica
from coordinator.forecast.terms import Explain, Explained, Foresee, Found, Sooner

AT_ONCE = 2  # changed jobs that are tried
QUICK_S = 0.1  # of processor time: a look that takes no more is made for every question
FRESH_S = 5.0  # how old one that takes more may be
REST = 10  # between two of them, times what one took
WITHIN_S = 0.03  # until an answer is given by a look that is kept
PATIENCE_S = 5.0  # until one is given by a look that is being made
MOST_TRIED = 200  # jobs of which is kept what they came to
MOST_SOONER = 8
WORTH_MS = 1_000
WORTH_PART = 0.9  # of the wait as it is; a change that saves less is not worth telling
AS_IT_IS = ""


@dataclass(slots=True)
class _Tried:
    """What changes of one job came to."""

    wishes: list[Change]
    came: dict[str, Start | None] = field(default_factory=dict)  # by text

    def left(self) -> int:
        return len(self.wishes) - len(self.came)


class Look:
    """A look ahead, and what was asked of it."""

    def __init__(self, replica: Replica, now_ms: int) -> None:
        self.ahead = Ahead(replica.core, now_ms)
        self.through = replica.core.state.last_sequence  # newer jobs are not in it
        self.began_s = time.monotonic()
        self.foretold: list[int] = []  # who wants to know of all jobs
        self.is_watched = False
        self._tried: dict[tuple[str, int], _Tried] = {}
        self._waiting: deque[tuple[_Tried, Change]] = deque()
        self._going: dict[int, tuple[_Tried, Change]] = {}
        self._numbers = count(1)

    @property
    def is_quick(self) -> bool:
        """Whether another one costs next to nothing."""
        return self.ahead.cost_s is not None and self.ahead.cost_s <= QUICK_S

    def is_stale(self) -> bool:
        """Whether it is time for another one."""
        cost_s = self.ahead.cost_s or 0.0
        return time.monotonic() - self.began_s >= max(FRESH_S, REST * cost_s)

    def tried(self, replica: Replica, job: Job) -> _Tried:
        """What changes of a job come to, as far as is known; what is not is tried from now on."""
        key = job.job_id, job.version
        known = self._tried.pop(key, None)
        if known is None:
            known = _Tried(list(self._wishes(replica, job)))
            self._waiting.extendleft((known, one) for one in reversed(known.wishes))
            for oldest in [*self._tried][: len(self._tried) + 1 - MOST_TRIED]:
                gone = self._tried.pop(oldest)
                self._waiting = deque(x for x in self._waiting if x[0] is not gone)
        self._tried[key] = known
        return known

    def hear(self) -> None:
        """Takes what was told, and has more tried."""
        for number, start in self.ahead.take().items():
            tried, change = self._going.pop(number)
            tried.came[change.text] = start
        while self._waiting and len(self._going) < AT_ONCE and not self.ahead.gone:
            number = next(self._numbers)
            tried, change = self._going[number] = self._waiting.popleft()
            self.ahead.ask(number, change)

    def _wishes(self, replica: Replica, job: Job) -> Iterator[Change]:
        if job.sequence > self.through:
            yield Change(AS_IT_IS, job)
        if is_in_line(job):
            yield from changes(replica.core.state, job)


@dataclass(slots=True)
class _Asked:
    """A question that waits for its answer."""

    number: int
    now_ms: int
    job: Job
    explanation: Explanation
    look: Look
    due_s: float

    def is_ready(self, replica: Replica) -> bool:
        ahead = self.look.ahead
        is_known = ahead.is_done or self.job.job_id in ahead.starts
        tried = self.look.tried(replica, self.job)
        return ahead.gone or (is_known and not tried.left())


class Explainer:
    """The looks ahead, and who waits for them."""

    def __init__(
        self, answer: Callable[[int, Found | None], None], watch: Callable[[int, bool], None]
    ) -> None:
        self._answer = answer
        self._watch = watch  # told of descriptors that are to be watched, or no more
        self._kept: Look | None = None
        self._next: Look | None = None
        self._changed = False
        self._asked: list[_Asked] = []

    def changed(self) -> None:
        """The replica is not as it was."""
        self._changed = True

    def foresee(self, replica: Replica, number: int, *, question: Foresee) -> None:
        """When will all jobs start?"""
        look = self._next or self._look(replica, question.now_ms)
        look.foretold.append(number)

    def explain(self, replica: Replica, number: int, *, question: Explain) -> None:
        """Why does a job wait?"""
        state, now_ms = replica.core.state, question.now_ms
        job = state.jobs.get(question.job_id)
        if job is None:
            self._answer(number, None)
            return
        explanation = explain(state, job, now_ms=now_ms)
        if job.status not in (JobStatus.QUEUED, JobStatus.PENDING):
            self._answer(number, Explained(explanation=explanation))
            return
        look = self._look_for(replica, now_ms)
        due_s = time.monotonic() + (WITHIN_S if look.ahead.is_done else PATIENCE_S)
        self._asked.append(_Asked(number, now_ms, job, explanation, look, due_s))
        look.tried(replica, job)
        self.hear(replica)

    def due_s(self) -> float | None:
        """In how many seconds `hear` is to be called, though nothing is heard; None for never."""
        if not self._asked:
            return None
        return max(0.0, min(one.due_s for one in self._asked) - time.monotonic())

    def hear(self, replica: Replica) -> None:
        """Takes what was told, and answers whom it can."""
        for look in (self._kept, self._next):
            if look is not None and look.is_watched:
                look.hear()
                if look.ahead.gone:
                    self._unwatch(look)
        if self._next is not None and self._next.ahead.is_done:
            self._keep(replica, self._next)
        waiting, self._asked = self._asked, []
        for one in waiting:
            if one.is_ready(replica) or time.monotonic() >= one.due_s:
                self._answer(one.number, _explained(replica, one))
            else:
                self._asked.append(one)

    def close(self) -> None:
        """Ends the looks; nobody is answered any more."""
        self._asked.clear()
        for look in (self._kept, self._next):
            if look is not None:
                self._close(look)
        self._kept = self._next = None

    def _look_for(self, replica: Replica, now_ms: int) -> Look:
        """The look to answer by; begins another one where it is time."""
        kept = self._kept
        if kept is None or (kept.is_quick and self._changed):
            if self._next is None or self._changed:
                return self._look(replica, now_ms)
            return self._next
        if self._next is None and kept.is_stale():
            self._look(replica, now_ms)
        return kept

    def _look(self, replica: Replica, now_ms: int) -> Look:
        """Begins another look, in place of one that is being made."""
        before, look = self._next, Look(replica, now_ms)
        self._next, self._changed = look, False
        self._watch(look.ahead.fd, True)
        look.is_watched = True
        if before is not None:
            look.foretold = before.foretold
            self._move(before, look)
        return look

    def _keep(self, replica: Replica, look: Look) -> None:
        """A look is done: from now on it is the one that answers."""
        before, self._kept, self._next = self._kept, look, None
        if before is not None:
            self._move(before, look)
        foreseen = replica.note(
            {job_id: at_ms for job_id, (at_ms, _) in look.ahead.starts.items()}, look.ahead.now_ms
        )
        for number in look.foretold:
            self._answer(number, foreseen)
        look.foretold.clear()

    def _move(self, before: Look, look: Look) -> None:
        """Who waits for one look waits for another."""
        for one in self._asked:
            if one.look is before:
                one.look = look
        self._close(before)

    def _close(self, look: Look) -> None:
        if look.is_watched:
            self._unwatch(look)
        look.ahead.close()

    def _unwatch(self, look: Look) -> None:
        self._watch(look.ahead.fd, False)
        look.is_watched = False


def _explained(replica: Replica, one: _Asked) -> Explained:
    look, job, now_ms = one.look, one.job, one.now_ms
    tried = look.tried(replica, job)
    start = look.ahead.starts.get(job.job_id) or tried.came.get(AS_IT_IS)
    wait_ms = None if start is None else max(0, start[0] - now_ms)
    range_ms: tuple[int | None, int | None] = (None, None)
    if wait_ms is not None:
        range_ms = replica.range_ms(job, wait_ms, now_ms=now_ms)

    def told_ms(changed_ms: int) -> int:
        """A changed wait, corrected as the wait is: one that is shorter is told to be."""
        if wait_ms and range_ms[0] is not None:
            return changed_ms * range_ms[0] // wait_ms
        return replica.range_ms(job, changed_ms, now_ms=now_ms)[0]

    waits_ms = {
        text: max(0, came[0] - now_ms)
        for text, came in tried.came.items()
        if text != AS_IT_IS and came is not None
    }
    found = [Sooner(text, told_ms(x)) for text, x in waits_ms.items() if _is_worth(x, wait_ms)]
    found.sort(key=lambda one: one.wait_ms)
    return Explained(
        explanation=one.explanation,
        wait_p50_ms=range_ms[0],
        wait_p90_ms=range_ms[1],
        sooner=tuple(found[:MOST_SOONER]),
        after_job_ids=start[1] if start is not None else (),
        age_ms=max(0, now_ms - look.ahead.now_ms),
        untried=tried.left(),
    )


def _is_worth(changed_ms: int, wait_ms: int | None) -> bool:
    if wait_ms is None:
        return True
    return changed_ms <= wait_ms * WORTH_PART and wait_ms - changed_ms >= WORTH_MS
