"""Who follows which job, and when; and that everybody hears the end of it."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.core.records import Job
from coordinator.rpc.follow import Cursors
from tests.sim.clock import SECOND
from tests.sim.people import People
from tests.sim.plans import TENANTS
from tests.sim.readers import FUTURE, Follower, LogReader, MetricReader, Place, Stranger
from tests.sim.truth import Checker, SimFailure

EVERY_MS = 8 * SECOND
MOST = 12  # readers at once
IN_THE_END = 5  # jobs whose whole log is read once all is over


class Audience(Checker):
    """All the readers of a world."""

    def __init__(
        self, place: Place, people: People, *, find: Callable[[str], Job | None], storm_ms: int
    ) -> None:
        self._place = place
        self._people = people
        self._find = find
        self._end_ms = place.loop.now_ms + storm_ms
        self._going: list[Follower] = []
        self._due: list[Follower] = []  # who should have heard the end by now

    def begin(self) -> None:
        """From now on somebody comes again and again, until the storm is over."""
        if self._place.loop.now_ms < self._end_ms:
            self._come()
            self._place.loop.after(self._place.rng.randint(1, 2 * EVERY_MS), self.begin)

    def settled(self) -> None:
        for reader in self._due:
            if not reader.is_over:
                raise SimFailure(f"a reader of {reader.job_id} never hears its end", reader.job_id)
        self._going = [one for one in self._going if not one.is_over]
        self._due = [one for one in self._going if self._is_final(one.job_id)]
        known = [id for id in self._people.accepted.values() if self._is_final(id)]
        for job_id in known[-IN_THE_END:]:
            whole = LogReader(self._place, job_id, self._tenant(job_id), rank=None, tail=-1)
            self._due.append(whole)
            whole.begin()
        for reader in self._due:
            reader.hurries = True

    def _come(self) -> None:
        rng = self._place.rng
        self._going = [one for one in self._going if not one.is_over]
        known = [id for id in self._people.accepted.values() if self._find(id) is not None]
        if not known or len(self._going) >= MOST:
            return
        reader = self._somebody(rng.choice(known[-MOST:]), rng.choice(known))
        self._going.append(reader)
        reader.begin()

    def _somebody(self, job_id: str, other_id: str) -> Follower:
        place, tenant_id = self._place, self._tenant(job_id)
        drawn = place.rng.random()
        if drawn < 0.5:
            return LogReader(place, job_id, tenant_id, rank=None, tail=-1)
        if drawn < 0.65:
            return LogReader(place, job_id, tenant_id, rank=0, tail=place.rng.choice((-1, 3)))
        if drawn < 0.8:
            return MetricReader(place, job_id, tenant_id)
        if drawn < 0.9:
            stranger = next(one for one in TENANTS if one != tenant_id)
            return Stranger(place, job_id, stranger, after="", wanted="JOB_NOT_FOUND")
        if drawn < 0.95 and other_id != job_id:
            cursor = Cursors(other_id).make(1)
            return Stranger(place, job_id, tenant_id, after=cursor, wanted="INVALID_ARGUMENT")
        cursor = Cursors(job_id).make(FUTURE)
        return Stranger(place, job_id, tenant_id, after=cursor, wanted="RESET")

    def _tenant(self, job_id: str) -> str:
        return self._people.tenant_of(job_id)

    def _is_final(self, job_id: str) -> bool:
        job = self._find(job_id)
        return job is not None and job.is_final
