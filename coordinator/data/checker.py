"""Has sources checked by a process of its own, and waits no longer than the rules say."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from coordinator.data.terms import NOT_CHECKED, TOO_LONG, Finding, Found, Question, Rules, Source

AT_ONCE = 4
WAITING_MAX = 32
LINE_BYTES_MAX = 64 * 1024
_OWN = "MIND_"


class Busy(Exception):
    """Too many checks wait."""


class Checker:
    """Checks sources, a few calls at once."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._free = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def check(
        self, sources: Sequence[Source], *, tenant_id: str, tokens: Mapping[str, str]
    ) -> list[Finding]:
        """A finding for each source, in order. Tokens go to the process by its stdin, and nowhere else.

        Raises:
            Busy: too many calls wait.
        """
        question = Question(
            rules=self._rules, tenant_id=tenant_id, sources=tuple(sources), tokens=dict(tokens)
        )
        if self._waiting >= WAITING_MAX:
            raise Busy
        self._waiting += 1
        found: dict[int, Finding] = {}
        missing = TOO_LONG
        try:
            async with asyncio.timeout(self._rules.all_s), self._free:
                await _ask(question, found)
            missing = NOT_CHECKED
        except TimeoutError:
            pass  # what was found by now is the answer
        finally:
            self._waiting -= 1
        return [found.get(index, Finding(error=missing)) for index in range(len(sources))]


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
