"""Readers of one stream share one call of the coordinator; none misses or repeats an event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from gateway.endpoint import Limits
from scaimind.v1 import job_pb2, stream_pb2
from tests.integration.gateway.scripted import OPEN, WITHIN_S, World, eventually, world

LOGS = "/jobs/job_1/logs"
MANY = Limits(user_streams=1000)


class Log:
    """A job's log as the coordinator serves it: every call from where it asks, to the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.final = False
        self.calls = 0
        """Open now."""
        self.begun = 0
        self._news = asyncio.Event()

    def add(self, *texts: str) -> None:
        self.lines += texts
        self._wake()

    def end(self) -> None:
        self.final = True
        self._wake()

    async def stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        position = int(request.after) if request.after else max(0, len(self.lines) - request.tail)
        self.calls += 1
        self.begun += 1
        try:
            await context.send_initial_metadata(OPEN)
            while True:
                news = self._news
                if position < len(self.lines):
                    batch = stream_pb2.StreamJobLogsResponse()
                    for text in self.lines[position : position + 7]:
                        position += 1
                        batch.events.add(id=str(position)).log.message = text
                    yield batch
                elif self.final:
                    batch = stream_pb2.StreamJobLogsResponse()
                    batch.events.add(id="end").end.status = job_pb2.Job.Status.COMPLETED
                    yield batch
                    return
                else:
                    await news.wait()
        finally:
            self.calls -= 1

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Reader:
    """Reads a stream to its end."""

    def __init__(self, client: httpx.AsyncClient, path: str = LOGS, **headers: str) -> None:
        self.ids: list[str] = []
        self.ended = ""
        self._client, self._path, self._headers = client, path, headers
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with self._client.stream("GET", self._path, headers=self._headers) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    self.ids.append(line[4:])
                if line.startswith("event: "):
                    self.ended = line[7:]


async def seen(readers: list[Reader], last: str) -> None:
    async def condition() -> bool:
        return all(reader.ids and reader.ids[-1] == last for reader in readers)

    await eventually(condition)


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def shared(running: World, log: Log, count: int) -> list[Reader]:
    """Readers that share one call, after line 1."""
    running.coordinator.scripts["StreamJobLogs"] = log.stream
    log.add("first")
    readers = [Reader(running.client, f"{LOGS}?tail=100") for _ in range(count)]
    await seen(readers, "1")

    async def one() -> bool:
        log.add("more")
        await seen(readers, str(len(log.lines)))
        return log.calls == 1

    await eventually(one)
    return readers


async def test_many_readers_are_served_by_one_call() -> None:
    log = Log()
    async with world(limits=MANY) as running:
        readers = await shared(running, log, 20)
        for number in range(30):
            log.add(f"line {number}")
        log.end()
        await asyncio.gather(*(reader.task for reader in readers))
        assert log.begun == 20
        for reader in readers:
            assert reader.ids == [*numbers(1, len(log.lines)), "end"]
            assert reader.ended == "end"


async def test_one_reader_alone_shares_nothing() -> None:
    log = Log()
    async with world() as running:
        running.coordinator.scripts["StreamJobLogs"] = log.stream
        reader = Reader(running.client)
        log.add("a", "b")
        log.end()
        await reader.task
        assert log.begun == 1
        assert not running.gateway.shared_streams


async def test_readers_come_and_go_while_lines_come() -> None:
    log = Log()
    async with world(limits=MANY) as running:
        running.coordinator.scripts["StreamJobLogs"] = log.stream
        log.add(*(["x"] * 50))
        readers: list[Reader] = []
        for number in range(40):
            log.add(*(["x"] * (number % 9)))
            readers.append(Reader(running.client, f"{LOGS}?tail={number % 3 * 20 + 1}"))
            if number % 4 == 3:
                readers[number - 2].task.cancel()
            await asyncio.sleep(0)
        log.add("last")
        log.end()
        await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
        stayed = [reader for reader in readers if reader.ended == "end"]
        assert len(stayed) >= 30
        for reader in stayed:
            *ids, end = reader.ids
            assert (end, ids) == ("end", numbers(int(ids[0]), len(log.lines)))
        assert not running.gateway.shared_streams


async def test_the_one_whose_call_it_was_may_leave() -> None:
    log = Log()
    async with world(limits=MANY) as running:
        first, *others = await shared(running, log, 5)
        first.task.cancel()
        log.add("after")
        log.end()
        await asyncio.gather(*(reader.task for reader in others))
        for reader in others:
            assert reader.ids == [*numbers(1, len(log.lines)), "end"]


async def test_a_reader_that_resumes_joins_the_others_and_misses_nothing() -> None:
    log = Log()
    async with world(limits=MANY) as running:
        readers = await shared(running, log, 3)
        log.add(*(["x"] * 20))
        await seen(readers, str(len(log.lines)))
        late = Reader(running.client, f"{LOGS}?tail=100", **{"last-event-id": "3"})
        await seen([late], str(len(log.lines)))
        log.add("y")
        await seen([late, *readers], str(len(log.lines)))

        async def joined() -> bool:
            return log.calls == 1

        await eventually(joined)
        log.end()
        await late.task
        assert late.ids == [*numbers(4, len(log.lines)), "end"]


async def test_a_frozen_reader_holds_up_nobody_and_goes_on_by_itself() -> None:
    log = Log()
    async with world(limits=MANY) as running:
        readers = await shared(running, log, 3)
        reader, writer = await asyncio.open_connection(*running.address, limit=20_000)
        path = f"/v1/modules/scaimind{LOGS}?tail=100"
        key = running.client.headers["authorization"]
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\n\r\n".encode())
        await reader.readuntil(b"id: 1\n")
        for _ in range(60):
            log.add(*(["x" * 10_000] * 20))
            await seen(readers, str(len(log.lines)))
        log.end()
        ids = ["1"]
        async with asyncio.timeout(WITHIN_S):
            while (line := await reader.readline()) != b"event: end\n":
                if line.startswith(b"id: "):
                    ids.append(line[4:].decode().strip())
        writer.close()
        assert ids == [*numbers(1, len(log.lines)), "end"]
        assert log.begun > 4
        await asyncio.gather(*(one.task for one in readers))


async def test_other_requests_and_other_permissions_are_not_shared() -> None:
    log = Log()
    async with world(limits=MANY) as running:
        running.coordinator.scripts["StreamJobLogs"] = log.stream
        log.add("x")
        view = {"authorization": "Bearer sgk_view"}
        readers = [
            Reader(running.client),
            Reader(running.client, **view),
            Reader(running.client, f"{LOGS}?level=WARNING"),
            Reader(running.client, f"{LOGS}?rank=1"),
            Reader(running.client, "/jobs/job_2/logs"),
        ]

        async def open_all() -> bool:
            return log.calls == 5

        await eventually(open_all)
        for _ in range(5):
            log.add("x")
            await asyncio.sleep(0.01)
        assert log.calls == 5
        log.end()
        await asyncio.gather(*(reader.task for reader in readers))


async def test_a_shared_call_that_breaks_breaks_all_its_readers() -> None:
    log = Log()
    async with world(limits=MANY) as running:
        readers = await shared(running, log, 4)
        assert running.gateway.shared_streams == 1
        await running.coordinator.stop()
        await asyncio.gather(*(reader.task for reader in readers))
        assert {reader.ended for reader in readers} == {"error"}
        assert not running.gateway.shared_streams
