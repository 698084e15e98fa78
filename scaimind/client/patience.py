"""How patient a caller is: when to try again, when to give up, and where a stream goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Generic

from scaimind.client.calls import Call, I_co, Stream
from scaimind.client.errors import DeadlineExceeded, MindError, Unavailable
from scaimind.v1 import job_pb2

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0
STEADY_S = 30.0
"""A connection that held for so long was a good one: its loss begins a new outage."""

FIRST_LOOK_S = 0.1
LONGEST_LOOK_S = 1.0

_Job = job_pb2.Job
FINAL = frozenset((_Job.COMPLETED, _Job.FAILED, _Job.CANCELLED))


class Patience:
    """Tells how long to wait before the next try, and when to give up.

    Only UNAVAILABLE is worth another try. Delays are drawn evenly from 0 to a limit that doubles
    up to 2 s (full jitter), so that many callers do not come back at once.
    """

    def __init__(
        self,
        total_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._total_s = total_s
        self._clock = clock
        self._draw = draw
        self._tries = 0
        self._ends_at: float | None = None

    def renew(self) -> None:
        """All is well: the next failure begins a new outage."""
        self._tries = 0
        self._ends_at = None

    def delay_s(self, error: MindError) -> float:
        """Seconds to wait after `error`; raises it where another try is useless or too late."""
        if not isinstance(error, Unavailable):
            raise error
        now = self._clock()
        if self._ends_at is None:
            self._ends_at = now + self._total_s
        if now >= self._ends_at:
            raise error
        limit = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._tries, 10))
        self._tries += 1
        wanted = max(self._draw() * limit, min(error.retry_after_s or 0.0, LONGEST_DELAY_S))
        return min(wanted, self._ends_at - now)


class Follow(Generic[I_co]):
    """Where a stream stands: what to ask for next, whether it has ended, what a break means."""

    def __init__(
        self,
        stream: Stream[I_co],
        patience: Patience,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._patience = patience
        self._clock = clock
        self._last_id = ""
        self._began_at = 0.0
        self.ended = False

    def call(self) -> Call[Any]:
        """The call that goes on exactly after the last event seen."""
        self._began_at = self._clock()
        return self._stream.after(self._last_id)

    def see(self, event: Any) -> None:
        """Takes note of an event."""
        self._last_id = event.id or self._last_id
        self.ended = event.WhichOneof("event") == "end"
        self._patience.renew()

    def closed(self) -> float | None:
        """The stream closed in good order: seconds until it is asked for again, None for never.

        A follower that was not told of the end has lost its server.
        """
        if self.ended or not self._stream.follows:
            self.ended = True
            return None
        return self.broken(Unavailable("the stream closed before the job ended"))

    def broken(self, error: MindError) -> float:
        """Seconds until it is asked for again; raises `error` where that is useless or too late."""
        if self._clock() - self._began_at >= STEADY_S:
            self._patience.renew()
        return self._patience.delay_s(error)


def is_settled(job: job_pb2.Job) -> bool:
    """Whether the job stays as it is unless somebody acts: final, or preempted for good."""
    if job.status in FINAL:
        return True
    scheduling = job.scheduling_config
    asked = scheduling.HasField("requeue_on_preemption")
    requeues = scheduling.requeue_on_preemption if asked else True
    return job.status == _Job.PREEMPTED and not requeues


class Watch:
    """Looks at one job until it is settled."""

    def __init__(
        self,
        on_update: Callable[[job_pb2.Job], None] | None,
        timeout_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_update = on_update
        self._clock = clock
        self._ends_at = None if timeout_s is None else clock() + timeout_s
        self._version: int | None = None
        self._look_s = FIRST_LOOK_S

    def see(self, job: job_pb2.Job) -> float | None:
        """Seconds until the next look, None once the job is settled.

        Raises:
            DeadlineExceeded: the time is up and the job goes on.
        """
        if self._on_update is not None and job.version != self._version:
            self._on_update(job)
        self._version = job.version
        if is_settled(job):
            return None
        left_s = LONGEST_LOOK_S if self._ends_at is None else self._ends_at - self._clock()
        if left_s <= 0:
            status = job_pb2.Job.Status.Name(job.status)
            raise DeadlineExceeded(f"{job.job_id} is still {status}", reason="WAIT_TIMEOUT")
        look_s = min(self._look_s, left_s)
        self._look_s = min(self._look_s * 1.5, LONGEST_LOOK_S)
        return look_s
