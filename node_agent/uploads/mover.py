"""The agent's end of transfers: a process for each, some at a time, and an end for one that hangs."""

from __future__ import annotations

import asyncio
import sys
from typing import Protocol

import msgspec

from node_agent.uploads.orders import Answer, Download, Failed, Order

UPLOADS = 2
DOWNLOADS = 4
SILENCE_S = 300.0  # of a transfer of which nothing moves


class MoverProtocol(Protocol):
    """Does transfers, in the order in which they are asked for."""

    async def __call__(self, order: Order) -> None:
        """Returns when it is done; a transfer that is cancelled ends at once. Raises Failed."""


class Mover:
    """See MoverProtocol. A process that has said nothing for `silence_s` is killed."""

    def __init__(self, *, silence_s: float = SILENCE_S) -> None:
        self._silence_s = silence_s
        self._up, self._down = asyncio.Semaphore(UPLOADS), asyncio.Semaphore(DOWNLOADS)

    async def __call__(self, order: Order) -> None:
        """Does one. Raises Failed."""
        async with self._down if isinstance(order, Download) else self._up:
            answer = await self._answer(order)
        if answer.fault:
            raise Failed(answer.fault, lasting=answer.lasting)

    async def _answer(self, order: Order) -> Answer:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "node_agent.uploads"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # what a library writes may hold secrets
            )
        except OSError as error:
            return Answer(f"the transfer cannot be started: {error.strerror}")
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            return await self._heard(process.stdout)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _heard(self, stdout: asyncio.StreamReader) -> Answer:
        line = b""
        try:
            while not line.startswith(b"{"):
                async with asyncio.timeout(self._silence_s):
                    line = await stdout.readline()
                if not line:
                    return Answer("the transfer has ended without an answer")
            return msgspec.json.decode(line, type=Answer)
        except TimeoutError:
            return Answer("nothing moves: the store does not answer")
        except (ValueError, msgspec.MsgspecError):
            return Answer("the transfer has ended without an answer")
