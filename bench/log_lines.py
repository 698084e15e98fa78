"""Log lines from a rank that prints to a client of server-sent events, and what each part of the way does."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.programs import MODULE, HttpFloor, http_request
from bench.report import Figure, Row, Target, in_turn
from coordinator.rpc.intake import append_of
from coordinator.streams.protocol import Append
from coordinator.streams.sqlite import SqliteStreams
from gateway.chunks import batch_printer
from gateway.json_out import JsonWriter
from node_agent.ranks import STDOUT, RankFiles
from node_agent.spool.channels import Channel
from node_agent.spool.readers import OutputReader, Reports
from node_agent.spool.tail import Tail
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import stream_pb2
from tests.support import jobs
from tests.support.cluster import Cluster

LINES = 200_000
PIECE_LINES = 100_000
ROUNDS = 2
READ_BYTES = 1 << 20
EVENT = b"\nevent: log\n"
PRINTER = """
    import os
    text = "".join(f"step {n} loss 1.2345 lr 2.0e-4 tokens/s 18234.5\\n" for n in range(LINES))
    data, at = text.encode(), 0
    while at < len(data):
        at += os.write(1, data[at : at + 65536])
    """


def rows() -> list[Row]:
    """The pieces first, then the whole."""
    return [*_pieces(), _whole()]


def _whole() -> Row:
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder) / "data") as cluster,
        HttpFloor("127.0.0.1:1") as floor,
    ):
        program = jobs.script(Path(folder), "lines.py", PRINTER.replace("LINES", str(LINES)))
        target = floor.address
        coalesced = http_request("GET", f"/lines?count={LINES}", target=target)

        def ours() -> float:
            job_id = cluster.client.submit(jobs.body(program)).job_id
            path = f"{MODULE}/jobs/{job_id}/logs?tail=-1"
            request = http_request("GET", path, target=cluster.http, key=cluster.key)
            return _read_events(cluster.http, request)

        mine, bare = in_turn((ours, lambda: _read_events(target, coalesced)), rounds=ROUNDS)
        name = "Log lines, process → agent → coordinator → SSE client; coalesced writes by hand"
        goal = Target(100_000, 200_000, of_ratio=False, unit="/s")
        return Row(name, Figure(mine, "/s"), Figure(bare, "/s"), goal)


def _read_events(address: str, request: bytes) -> float:
    """Log events per second, from the first bytes of the answer to the last event."""
    host, _, port = address.rpartition(":")
    count, end, began = 0, b"", 0.0
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        while count < LINES and (data := connection.recv(READ_BYTES)):
            began = began or time.perf_counter()
            # An event's head may lie across two reads.
            count += (end + data).count(EVENT) - end.count(EVENT)
            end = (end + data)[-(len(EVENT) - 1) :]
        took = time.perf_counter() - began
    if count < LINES:
        raise RuntimeError(f"{count} of {LINES} lines came")
    return count / took


def _pieces() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "".join(
            f"step {n} loss 1.2345 lr 2.0e-4 tokens/s 18234.5\n" for n in range(PIECE_LINES)
        )
        (folder / STDOUT).write_text(text)
        batches = _batches(folder)
        (read,) = in_turn((lambda: _read_file(folder),), rounds=ROUNDS)
        numbers = iter(range(1000))
        (kept,) = in_turn(
            (lambda: asyncio.run(_keep(batches, folder / f"{next(numbers)}.db")),), rounds=ROUNDS
        )
        printed, bare = in_turn((_Printer(), _print_by_hand), rounds=ROUNDS)
    return [
        Row("Log lines through the agent's spool: tail, split, level", Figure(read, "/s")),
        Row("Log lines kept by the coordinator: durable append", Figure(kept, "/s")),
        Row(
            "Log lines printed as server-sent events by the gateway; joined by hand",
            Figure(printed, "/s"),
            Figure(bare, "/s"),
        ),
    ]


@contextmanager
def _channel(folder: Path) -> Iterator[Channel]:
    rank = RankFiles(folder, "job", "job", 1, "lease", 1, 0, folder, 3)
    reader = OutputReader(Reports(), seeks_metrics=True)
    channel = Channel(STDOUT, rank, tail=Tail(folder / STDOUT), reader=reader)
    try:
        yield channel
    finally:
        channel.close()


def _batches(folder: Path) -> list[agent_api.PushRequest]:
    with _channel(folder) as channel:
        return list(iter(lambda: channel.next_batch(now_ms=1), None))


def _read_file(folder: Path) -> float:
    began = time.process_time()
    count = sum(len(batch.texts) for batch in _batches(folder))
    return count / (time.process_time() - began)


async def _keep(batches: list[agent_api.PushRequest], path: Path) -> float:
    streams = SqliteStreams(path)
    await streams.open()
    try:
        began = time.perf_counter()
        waiting: list[Append] = [append_of(batch) for batch in batches]
        for first in range(0, len(waiting), 16):
            await streams.append(waiting[first : first + 16])
        return PIECE_LINES / (time.perf_counter() - began)
    finally:
        await streams.close()


def _line(number: int) -> stream_pb2.LogEvent:
    line = stream_pb2.LogLine(
        level=stream_pb2.INFO,
        message=f"step {number} loss 1.2345 lr 2.0e-4 tokens/s 18234.5",
        node_id="node-0",
        attempt=1,
        stream="stdout",
        cursor=f"{number}.0badcafe",
    )
    line.timestamp.FromMilliseconds(1_767_225_600_000 + number)
    return stream_pb2.LogEvent(id=line.cursor, log=line)


class _Printer:
    """The gateway's printer at work on batches of 500 events."""

    def __init__(self) -> None:
        self._print = batch_printer(stream_pb2.StreamJobLogsResponse.DESCRIPTOR, JsonWriter())
        self._batches = [
            stream_pb2.StreamJobLogsResponse(events=[_line(n) for n in range(first, first + 500)])
            for first in range(0, 20_000, 500)
        ]

    def __call__(self) -> float:
        began = time.process_time()
        for batch in self._batches:
            for _ in self._print(batch):
                pass
        return 20_000 / (time.process_time() - began)


def _print_by_hand() -> float:
    data = (
        'id: %d.0badcafe\nevent: log\ndata: {"level":"INFO","message":"step %d loss 1.2345 lr 2.0e-4",'
        '"timestamp":"2026-01-01T00:00:00.000Z","rank":0,"node_id":"node-0","attempt":1,'
        '"stream":"stdout","cursor":"%d.0badcafe"}\n\n'
    )
    began = time.process_time()
    for first in range(0, 20_000, 500):
        "".join([data % (n, n, n) for n in range(first, first + 500)]).encode()
    return 20_000 / (time.process_time() - began)
