"""How many requests a key, a user and a tenant may make in a minute.

All limits apply at once: a request counts against all of them or, where one is used up, against
none. The window slides in steps of a second: in no 59 seconds are there more than the limit, and who
is refused waits for a minute at most. A subject takes one small counter for each second that saw a
request, whatever its limit is.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from gateway.auth import Identity
from gateway.codes import Code
from gateway.status import Failure

WINDOW_S = 59  # and the rest of the second in which a request came
SUBJECTS = 50_000

HeaderList = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a limit is counted for, under a name that tells nothing of it."""

    name: str
    limit: int


@dataclass(frozen=True, slots=True)
class Usage:
    """How a subject stands, after the request was counted or refused."""

    remaining: int
    reset_after_s: float
    """Until the oldest counted request leaves the window; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may pass, and how its subjects stand, in their order."""

    allowed: bool
    usages: tuple[Usage, ...]


class Window(Protocol):
    """Counts requests; one for each gateway, or one that several gateways share."""

    async def take(self, subjects: Sequence[Subject]) -> Verdict:
        """Counts a request against all subjects, unless one of them is at its limit."""
        ...

    async def close(self) -> None:
        """Lets go of what it holds."""
        ...


class _Counter:
    """The requests of one subject: seconds and their counts, oldest first."""

    __slots__ = ("seconds", "total")

    def __init__(self) -> None:
        self.seconds: deque[list[int]] = deque()
        self.total = 0

    def expire(self, second: int, window_s: int) -> None:
        # The whole of a second counts until its last moment is a window ago.
        while self.seconds and self.seconds[0][0] < second - window_s:
            self.total -= self.seconds.popleft()[1]

    def add(self, second: int) -> None:
        if self.seconds and self.seconds[-1][0] == second:
            self.seconds[-1][1] += 1
        else:
            self.seconds.append([second, 1])
        self.total += 1

    def reset_after_s(self, now: float, window_s: int) -> float:
        return self.seconds[0][0] + window_s + 1 - now if self.seconds else 0.0


class LocalWindow:
    """The window of one gateway, in memory."""

    def __init__(
        self,
        *,
        window_s: int = WINDOW_S,
        capacity: int = SUBJECTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keeps at most `capacity` subjects; the one not seen for longest is forgotten first."""
        self._window_s, self._capacity, self._clock = window_s, capacity, clock
        self._counters: OrderedDict[str, _Counter] = OrderedDict()

    async def take(self, subjects: Sequence[Subject]) -> Verdict:
        """See Window."""
        now = self._clock()
        second = int(now)
        counters = [self._counter(subject.name, second) for subject in subjects]
        allowed = all(
            counter.total < subject.limit
            for counter, subject in zip(counters, subjects, strict=True)
        )
        if allowed:
            for counter in counters:
                counter.add(second)
        while len(self._counters) > self._capacity:
            self._counters.popitem(last=False)
        return Verdict(
            allowed,
            tuple(
                Usage(
                    max(0, subject.limit - counter.total),
                    counter.reset_after_s(now, self._window_s),
                )
                for counter, subject in zip(counters, subjects, strict=True)
            ),
        )

    async def close(self) -> None:
        """Holds nothing that must be let go."""

    def _counter(self, name: str, second: int) -> _Counter:
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = _Counter()
        self._counters.move_to_end(name)
        counter.expire(second, self._window_s)
        return counter


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests in a minute; 0 is no limit."""

    key: int = 60
    user: int = 120
    tenant: int = 1000


class Limiter:
    """Holds callers to their rates."""

    def __init__(self, window: Window, rates: Rates) -> None:
        """Takes where requests are counted, and how many may be made."""
        self.window, self._rates = window, rates

    async def admit(self, identity: Identity, headers: HeaderList) -> None:
        """Counts a request, and adds what the caller is told about the tightest of its limits.

        Raises:
            Failure: 429, where a limit is used up.
        """
        subjects = self._subjects(identity)
        if not subjects:
            return
        verdict = await self.window.take(subjects)
        subject, usage = min(
            zip(subjects, verdict.usages, strict=True),
            key=lambda pair: (pair[1].remaining, -pair[1].reset_after_s),
        )
        reset_s = max(1, ceil(usage.reset_after_s))
        headers += _headers(subject.limit, usage.remaining, reset_s=reset_s)
        if not verdict.allowed:
            raise Failure(
                Code.RATE_LIMITED,
                message=f"More than {subject.limit} requests in a minute.",
                retry_after_s=reset_s,
            )

    def _subjects(self, identity: Identity) -> list[Subject]:
        rates, tenant = self._rates, identity.tenant_id
        named = (
            (rates.key, f"key:{identity.key_sha256}" if identity.key_sha256 else ""),
            (rates.user, f"user:{tenant}/{identity.user_id}"),
            (rates.tenant, f"tenant:{tenant}"),
        )
        # Subjects of one tenant stand together where a shared store is spread over machines.
        group = _digest(tenant)
        return [
            Subject(f"{{{group}}}:{_digest(name)}", limit)
            for limit, name in named
            if name and limit
        ]


def _headers(limit: int, remaining: int, *, reset_s: int) -> HeaderList:
    told = ((b"limit", limit), (b"remaining", remaining), (b"reset", reset_s))
    return [
        (prefix + name, str(value).encode())
        for prefix in (b"x-ratelimit-", b"x-scaigrid-ratelimit-")
        for name, value in told
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
