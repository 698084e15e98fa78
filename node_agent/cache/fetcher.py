"""One process that looks at a source and fetches it, as the agent speaks with it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec

from node_agent.cache.terms import Failed, Go, Order, Told

_LINE_BYTES_MAX = 64 * 1024
_OWN = "MIND_"
END_S = 10.0


class CannotFetch(Exception):
    """What a job names cannot be had here; the text is for its user. `is_final`: nor later, as it is."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        super().__init__(text)
        self.is_final = is_final


class Fetcher:
    """A process that was given its order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self) -> Told:
        """What it tells next.

        Raises:
            CannotFetch: it has failed, or is gone.
        """
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
            told: Told = msgspec.json.decode(line, type=Told)
        except (ValueError, msgspec.DecodeError):
            raise CannotFetch("the process that fetches it has failed") from None
        if isinstance(told, Failed):
            raise CannotFetch(told.text, is_final=told.is_final)
        return told

    async def write(self, message: Order | Go) -> None:
        """Writes a line to it; that it is gone is seen by `told`."""
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            await self._process.stdin.drain()


@asynccontextmanager
async def fetching(order: Order) -> AsyncIterator[Fetcher]:
    """A process for an order, which is gone at the end. Tokens go to its stdin, and nowhere else.

    Raises:
        CannotFetch: the machine gives no process.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "node_agent.cache"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environ,
            limit=_LINE_BYTES_MAX,
        )
    except OSError as error:
        raise CannotFetch(f"no process to fetch it with: {error.strerror}") from None
    try:
        fetcher = Fetcher(process)
        await fetcher.write(order)
        yield fetcher
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it ends by itself; a signal could reach another, or race its end
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
