"""Which jobs wait in which queue, in the order in which they would start, and how many run.

Kept with every change of a job, so that a reader pays for what it is shown and not for what waits: a
job's place among 100,000 is found by a few bisections.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, chain, islice
from typing import TypeVar

from coordinator.core.known import is_in_line
from coordinator.core.order import turn_of
from coordinator.core.records import WAITING, Job, Order, Queue
from coordinator.core.tables import ASIDE

CHUNK = 512

# Whether it cannot be its turn yet, and its turn among those that are as it is.
Place = tuple[bool, int, int, int, str]
User = tuple[str, str]  # tenant and user
K = TypeVar("K", str, User)


class Turns:
    """Turns in order: short sorted lists in a row."""

    def __init__(self) -> None:
        self._chunks: list[list[Place]] = []
        self._lasts: list[Place] = []  # of each chunk
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Place]:
        return chain.from_iterable(self._chunks)

    def add(self, turn: Place) -> None:
        """Takes in one that is not there."""
        self._count += 1
        if not self._lasts or turn > self._lasts[-1]:  # as most are
            if not self._lasts or len(self._chunks[-1]) >= CHUNK:
                self._chunks.append([turn])
                self._lasts.append(turn)
            else:
                self._chunks[-1].append(turn)
                self._lasts[-1] = turn
            return
        index = bisect_left(self._lasts, turn)
        chunk = self._chunks[index]
        insort(chunk, turn)
        if len(chunk) > 2 * CHUNK:
            self._chunks[index : index + 1] = chunk[:CHUNK], chunk[CHUNK:]
            self._lasts.insert(index, chunk[CHUNK - 1])
            index += 1
        self._lasts[index] = self._chunks[index][-1]

    def remove(self, turn: Place) -> None:
        """Lets one go that is there."""
        self._count -= 1
        index = bisect_left(self._lasts, turn)
        chunk = self._chunks[index]
        del chunk[bisect_left(chunk, turn)]
        if chunk:
            self._lasts[index] = chunk[-1]
        else:
            del self._chunks[index], self._lasts[index]

    def before(self, turn: Place) -> Iterator[Place]:
        """Those before one, whether it is there or not, the nearest first."""
        index = bisect_left(self._lasts, turn)
        if index < len(self._chunks):
            chunk = self._chunks[index]
            yield from reversed(chunk[: bisect_left(chunk, turn)])
        for chunk in reversed(self._chunks[:index]):
            yield from reversed(chunk)

    def count_before(self, turn: Place) -> int:
        """How many are before one, whether it is there or not."""
        index = bisect_left(self._lasts, turn)
        within = bisect_left(self._chunks[index], turn) if index < len(self._chunks) else 0
        return sum(map(len, self._chunks[:index])) + within

    def places(self, turns: Iterable[Place]) -> list[int]:
        """The place of each of some turns, 1 for the first of all."""
        before = [0, *accumulate(map(len, self._chunks))]
        found = []
        for turn in turns:
            index = bisect_left(self._lasts, turn)
            found.append(before[index] + bisect_left(self._chunks[index], turn) + 1)
        return found


class QueueFigures:
    """One queue."""

    __slots__ = ("by_tenant", "by_user", "live", "order", "running", "waiting")

    def __init__(self, order: Queue) -> None:
        self.order = order
        self.waiting = Turns()
        self.by_tenant: dict[str, Turns] = {}  # of those that wait
        self.by_user: dict[User, Turns] = {}  # the same, where whose turn it is goes by users
        self.running = 0  # jobs that hold devices
        self.live: Counter[str] = Counter()  # jobs that are not final, by tenant

    def first(self, tenant_id: str, limit: int) -> list[tuple[int, str]]:
        """Place among all that wait, and id, of the tenant's next jobs."""
        turns = list(islice(self.by_tenant.get(tenant_id, ()), limit))
        return [
            (place, turn[-1]) for place, turn in zip(self.waiting.places(turns), turns, strict=True)
        ]

    def first_by_use(
        self, tenant_id: str, limit: int, *, used: Mapping[User, float]
    ) -> list[tuple[int, str]]:
        """The same where users who used less come first, among jobs of a priority."""
        mine = [
            (turn[:2], used[user], turn)
            for user, turns in self.by_user.items()
            if user[0] == tenant_id
            for turn in islice(turns, limit)
        ]
        mine.sort()
        by_use: dict[float, list[Turns]] = {}
        for user, turns in self.by_user.items():
            by_use.setdefault(used[user], []).append(turns)
        known: dict[tuple[float, Place], int] = {}

        def before(turn: Place, own: float) -> Iterator[int]:
            for use, users in by_use.items():
                if use == own:
                    yield sum(one.count_before(turn) for one in users)
                    continue
                key = use, (turn[0], turn[1] + (use < own), -1, 0, "")  # ends with its priority
                if key not in known:
                    known[key] = sum(one.count_before(key[1]) for one in users)
                yield known[key]

        return [(1 + sum(before(turn, own)), turn[-1]) for _, own, turn in mine[:limit]]

    def count(self, job: Job, sign: int) -> None:
        """Takes a job that is not final in (1), or out (-1), as it stands."""
        tenant_id = job.tenant_id
        live = self.live[tenant_id] = self.live[tenant_id] + sign
        if not live:
            del self.live[tenant_id]
        if job.status in WAITING:
            place = place_of(job, self.order)
            if sign > 0:
                self.waiting.add(place)
            else:
                self.waiting.remove(place)
            _count(self.by_tenant, tenant_id, place=place, sign=sign)
            if self.order.order is Order.FAIR:
                _count(self.by_user, (tenant_id, job.user_id), place=place, sign=sign)
        elif job.status not in ASIDE:
            self.running += sign


class Queues:
    """All queues that have live jobs, by name."""

    def __init__(self) -> None:
        self.by_name: dict[str, QueueFigures] = {}
        self.settings: dict[str, Queue] = {}  # of those that were set

    def clear(self) -> None:
        """Forgets all."""
        self.by_name.clear()
        self.settings.clear()

    def of(self, name: str) -> QueueFigures:
        """One queue; an empty one where nothing is in it."""
        found = self.by_name.get(name)
        return found or QueueFigures(self.settings.get(name) or Queue(name=name))

    def put_order(self, order: Queue, jobs: Mapping[str, Job]) -> None:
        """Orders a queue anew; `jobs` are all that live, by id."""
        self.settings[order.name] = order
        queue = self.by_name.get(order.name)
        if queue is None:
            return
        waiting = [jobs[turn[-1]] for turn in queue.waiting]
        for job in waiting:
            queue.count(job, -1)
        queue.order = order
        for job in waiting:
            queue.count(job, 1)

    def drop_order(self, name: str, jobs: Mapping[str, Job]) -> None:
        """Orders a queue as by default."""
        self.put_order(Queue(name=name), jobs)
        del self.settings[name]

    def put(self, before: Job | None, after: Job | None) -> None:
        """Follows one job from how it stood to how it stands; None for not at all."""
        if before is not None and after is not None and _stands(before) == _stands(after):
            return
        if before is not None and not before.is_final:
            queue = self.by_name[before.queue_name]
            queue.count(before, -1)
            if not queue.live:
                del self.by_name[before.queue_name]
        if after is not None and not after.is_final:
            known = self.by_name.get(after.queue_name)
            if known is None:
                known = self.by_name[after.queue_name] = self.of(after.queue_name)
            known.count(after, 1)


def _count(by: dict[K, Turns], key: K, *, place: Place, sign: int) -> None:
    turns = by.get(key)
    if turns is None:
        turns = by[key] = Turns()
    if sign > 0:
        turns.add(place)
        return
    turns.remove(place)
    if not turns:
        del by[key]


def place_of(job: Job, order: Queue) -> Place:
    """Where a waiting job stands: one that waits for a time or for other jobs holds up nobody."""
    return (not is_in_line(job), *turn_of(job, order))


def _stands(job: Job) -> tuple[object, ...]:
    place = is_in_line(job), job.queue_name, job.tenant_id
    return (*place, job.status, job.standing, job.work_ms)
