"""Has sources checked by a process of its own, and waits no longer than the rules say."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec

from coordinator.data.terms import NOT_CHECKED, TOO_LONG, Finding, Found, Question, Rules, Source

AT_ONCE = 4
TENANT_AT_ONCE = 2  # so that one tenant's dead servers never hold up all others
WAITING_MAX = 32
TENANT_WAITING_MAX = 16
LINE_BYTES_MAX = 64 * 1024
_OWN = "MIND_"


class Busy(Exception):
    """Too many checks wait."""


class Checker:
    """Checks sources, a few calls at once, and fewer of one tenant."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._free = asyncio.Semaphore(AT_ONCE)
        self._turns: dict[str, asyncio.Semaphore] = {}  # of tenants whose calls are here
        self._calls: Counter[str] = Counter()

    async def check(
        self, sources: Sequence[Source], *, tenant_id: str, tokens: Mapping[str, str]
    ) -> list[Finding]:
        """A finding for each source, in order. Tokens go to the process by its stdin, and nowhere else.

        Raises:
            Busy: too many calls wait, in all or of this tenant.
        """
        question = Question(
            rules=self._rules, tenant_id=tenant_id, sources=tuple(sources), tokens=dict(tokens)
        )
        found: dict[int, Finding] = {}
        missing = TOO_LONG
        with self._place(tenant_id) as turn, suppress(TimeoutError):
            async with asyncio.timeout(self._rules.all_s), turn, self._free:
                await _ask(question, found)
            missing = NOT_CHECKED
        return [found.get(index, Finding(error=missing)) for index in range(len(sources))]

    @contextmanager
    def _place(self, tenant_id: str) -> Iterator[asyncio.Semaphore]:
        """A place among the calls, and what gives the tenant its turns. Raises Busy."""
        if self._calls.total() >= WAITING_MAX or self._calls[tenant_id] >= TENANT_WAITING_MAX:
            raise Busy
        self._calls[tenant_id] += 1
        try:
            yield self._turns.setdefault(tenant_id, asyncio.Semaphore(TENANT_AT_ONCE))
        finally:
            self._calls[tenant_id] -= 1
            if not self._calls[tenant_id]:
                del self._calls[tenant_id], self._turns[tenant_id]


async def _ask(question: Question, found: dict[int, Finding]) -> None:
    """Starts the process and takes what it finds; it is gone when this ends, however it ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "coordinator.data",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith(_OWN)},
        limit=LINE_BYTES_MAX,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(question))
            process.stdin.write_eof()
            await process.stdin.drain()
        async for line in process.stdout:
            one = msgspec.json.decode(line, type=Found)
            found[one.index] = one.finding
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
