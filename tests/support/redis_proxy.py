"""Stands before a redis-server and knows WAITAOF, which servers before 7.2 do not."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import hiredis


class RedisProxy:
    """Passes commands on, one after the other; answers WAITAOF itself.

    Attributes:
        on_disk: what WAITAOF says: 1 where the log is on the disk, 0 where it is not in time.
        asked: how often it was asked.
    """

    def __init__(self, behind: Path, path: Path) -> None:
        self.on_disk = 1
        self.asked = 0
        self.url = f"unix://{path}"
        self._behind, self._path = behind, path
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> RedisProxy:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        server, commands = await asyncio.open_unix_connection(self._behind)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                raw, name = await _command(client)
                if name == b"WAITAOF":
                    self.asked += 1
                    answers.write(b"*2\r\n:%d\r\n:0\r\n" % self.on_disk)
                else:
                    commands.write(raw)
                    answers.write(await _answer(server))
        for writer in (commands, answers):
            writer.close()


async def _command(client: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A command as it was sent, and its name."""
    head = await client.readuntil(b"\r\n")
    raw, name = head, b""
    for _ in range(int(head[1:])):
        length = await client.readuntil(b"\r\n")
        word = await client.readexactly(int(length[1:]) + 2)
        name = name or word[:-2].upper()
        raw += length + word
    return raw, name


async def _answer(server: asyncio.StreamReader) -> bytes:
    """One answer as it came."""
    reader, raw = hiredis.Reader(), b""
    while True:
        data = await server.read(1 << 16)
        if not data:
            raise ConnectionError("the server has gone")
        raw += data
        reader.feed(data)
        if reader.gets() is not False:
            return raw
