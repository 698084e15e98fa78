"""The cache as leases use it: whoever asks gets a path, and the path stays for as long as the lease does.

Of one content there is one fetch; who else wants it waits for that, and goes on with it where its lease
was stopped meanwhile. Room is made by dropping what was used least recently and no lease holds.

What a job that waits is expected to need is fetched ahead, one source at a time, and only while no lease
fetches: a lease that begins to has it given up, and it goes on later where it was. Where a lease wants the
same content, it waits for that fetch as for any other, and from then on it is the lease's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from node_agent.cache.fetcher import CannotFetch, Fetcher, fetching
from node_agent.cache.pace import Pace, read_pace, write_pace
from node_agent.cache.store import Entry, Held, NoRoom, Shelf, User
from node_agent.cache.terms import Begun, Fetched, Go, Grown, Looked, Order, Rules
from scaimind.service.reach.keys import plain

AT_ONCE = 8
PACE_FILE = "pace.json"
GB = 1_000_000_000
FULL = "the node's data cache has room for {room:.1f} GB beside what is in use, and it is larger"
BROKEN = "the process that fetches it has failed"

log = structlog.get_logger()

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all; 0 in all is not known."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something that a job names. tokens: by scheme, the job's own. `bundle`, `reader`: as in Order."""

    uri: str
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    bundle: bool = False
    reader: tuple[int, int] | None = None


class _Flight:
    """One fetch, and who waits for it."""

    def __init__(self, total_bytes: int, give_up: Callable[[], object] | None) -> None:
        """`give_up` ends what is fetched ahead; None where a lease waits for it."""
        self.give_up = give_up
        self.total_bytes = total_bytes
        self.reserved_bytes = total_bytes
        self.followers: list[Progress] = []
        self.over = asyncio.Event()

    def grown(self, done_bytes: int) -> None:
        self.reserved_bytes = max(self.reserved_bytes, done_bytes)
        for follower in self.followers:
            follower(done_bytes, self.total_bytes)


@dataclass(frozen=True, slots=True)
class _Ask:
    """Somebody who asks for something, with the process that looks at it."""

    uri: str
    user: User
    fetcher: Fetcher
    progress: Progress


class Cache:
    """The data cache of one node. Used from the event loop only."""

    def __init__(self, folder: Path, *, budget_bytes: int, rules: Rules) -> None:
        """Touches nothing yet; `folder` is absolute."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when what `entries` says may have changed."""
        self.budget_bytes = budget_bytes
        self.pace = Pace()
        """That of all that the node fetches."""
        self._pace_file = folder / PACE_FILE
        self._kept = self.pace.total
        self._rules = rules
        self._shelf = Shelf(folder, budget_bytes=budget_bytes)
        self._disk = ThreadPoolExecutor(1, "cache")
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._flights: dict[str, _Flight] = {}

    async def open(self) -> None:
        """Finds again what an earlier agent has kept. OSError."""
        await self._do(self._shelf.open)
        self._kept = await self._do(partial(read_pace, self._pace_file))
        self.pace.take_over(self._kept)
        log.info("cache_opened", objects=len(self._shelf.objects), bytes=self._shelf.used_bytes)

    async def get(self, wanted: Wanted, *, user: User, progress: Progress) -> tuple[str, Path]:
        """Has it here until the user is released; returns its id and where it lies. May be cancelled.

        Raises:
            CannotFetch: it cannot be had.
        """
        async with self._turns:
            held = await self._get(wanted, user=user, progress=progress)
        self.on_change()
        return held.object_id, held.path

    async def get_ahead(self, wanted: Wanted, *, user: User) -> None:
        """Has it here for a user who is `ahead`, while no lease fetches anything.

        Is cancelled where a lease begins to; then it may be asked for again, once that is over. May be
        cancelled by others too. CannotFetch.
        """
        while busy := [one for one in self._flights.values() if one.give_up is None]:
            await busy[0].over.wait()
        await self._get(wanted, user=user, progress=_nobody)
        self.on_change()

    async def pin(self, object_ids: Sequence[str], *, owner: str, job_id: str) -> None:
        """Says that an owner whom an earlier agent served uses objects; unknown ones are nothing."""
        await self._do(partial(self._shelf.pin, object_ids, owner=owner, job_id=job_id))

    async def release(self, owner: str) -> None:
        """Says that an owner uses nothing any more."""
        await self._do(partial(self._shelf.release, owner))
        self.on_change()

    async def entries(self) -> list[Entry]:
        """All objects, the most recently used first."""
        return await self._do(self._shelf.entries)

    async def keep_pace(self) -> None:
        """Writes down for the next agent how fast fetches have been. OSError."""
        total = self.pace.total
        if total != self._kept:
            await self._do(partial(write_pace, self._pace_file, total))
            self._kept = total

    def close(self) -> None:
        """Gives up what it is doing."""
        self._disk.shutdown(wait=False, cancel_futures=True)

    async def _get(self, wanted: Wanted, *, user: User, progress: Progress) -> Held:
        order = Order(
            uri=wanted.uri,
            tenant_id=user.tenant_id,
            partials=str(self._shelf.partials),
            rules=self._rules,
            tokens=dict(wanted.tokens),
            bundle=wanted.bundle,
            reader=wanted.reader,
        )
        try:
            async with fetching(order) as fetcher:
                return await self._held(_Ask(wanted.uri, user, fetcher, progress))
        except NoRoom as fault:
            raise CannotFetch(FULL.format(room=fault.room_bytes / GB)) from None
        except OSError as error:
            raise CannotFetch(f"the node's data cache: {error.strerror}") from None

    async def _held(self, ask: _Ask) -> Held:
        """Finds it here, waits for whoever fetches it, or fetches it."""
        looked = await ask.fetcher.told()
        if not isinstance(looked, Looked):
            raise CannotFetch(BROKEN)
        while True:
            held = await self._do(partial(self._shelf.find, looked.key, ask.user))
            if held is not None:
                return held
            flight = self._flights.get(looked.key)
            if flight is not None:
                flight.followers.append(ask.progress)
                if not ask.user.ahead:
                    flight.give_up = None
            else:
                flight = self._in_the_way(ask)
            if flight is None:
                break
            await flight.over.wait()
        flight = self._flights[looked.key] = _Flight(looked.total_bytes, _giving_up(ask))
        flight.followers.append(ask.progress)
        try:
            return await self._fetch(ask, looked, flight=flight)
        finally:
            del self._flights[looked.key]
            flight.over.set()

    def _in_the_way(self, ask: _Ask) -> _Flight | None:
        """What is fetched now and has to end before; what was begun ahead is given up for a lease."""
        for flight in self._flights.values():
            if flight.give_up is not None and not ask.user.ahead:
                flight.give_up()
                return flight
            if flight.give_up is None and ask.user.ahead:
                return flight
        return None

    async def _fetch(self, ask: _Ask, looked: Looked, *, flight: _Flight) -> Held:
        reserved = sum(one.reserved_bytes for one in self._flights.values())
        make_room = partial(
            self._shelf.make_room,
            looked.total_bytes,
            reserved_bytes=reserved - flight.reserved_bytes,
            busy=tuple(self._flights),
            ahead=ask.user.ahead,
        )
        await ask.fetcher.write(Go(await self._do(make_room)))
        flight.grown(0)
        told = await self._followed(ask.fetcher, flight)
        flight.grown(told.size_bytes)
        uri = plain(ask.uri)
        log.info("cache_fetched", uri=uri, bytes=told.size_bytes)
        commit = partial(self._shelf.commit, looked.key, told.object_id, uri=uri, user=ask.user)
        return await self._do(commit)

    async def _followed(self, fetcher: Fetcher, flight: _Flight) -> Fetched:
        """Waits until all of it is there, and takes how fast it comes."""
        come_bytes, is_coming = 0, False
        try:
            while True:
                told, now_s = await fetcher.told(), time.monotonic()
                if isinstance(told, Begun) and not is_coming:
                    is_coming = True
                    self.pace.begin(now_s)
                    continue
                if not isinstance(told, Grown | Fetched):
                    raise CannotFetch(BROKEN)
                if is_coming:
                    self.pace.come(told.come_bytes - come_bytes, now_s)
                    come_bytes = told.come_bytes
                if isinstance(told, Fetched):
                    return told
                flight.grown(told.done_bytes)
        finally:
            if is_coming:
                self.pace.end()

    async def _do(self, work: Callable[[], _T]) -> _T:
        """Does what blocks, one after the other; what was begun is done, also where nobody waits."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)


def _giving_up(ask: _Ask) -> Callable[[], object] | None:
    doing = asyncio.current_task()
    return doing.cancel if ask.user.ahead and doing is not None else None


def _nobody(_: int, __: int) -> None:
    """Nobody is told how far it is."""
