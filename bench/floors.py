"""The floors: the least that any Python server of this kind does. Each is a process of its own.

`grpc`: a bare grpc.aio server that echoes a message, answers one that it holds, or first writes the
message as one row of a group-committed SQLite file (WAL, FULL), a batch as a row for each of its jobs.
`http`: a bare Starlette application whose routes make one bare call of it, and one that sends server-sent
events that were put together by hand, many in one write.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api

SERVICE = "bench.Floor"
EVENTS_PER_WRITE = 512
REQUEST_BYTES_MAX = 16 << 20


class GroupCommit:
    """Rows of one table; all that wait while one commit runs share the next."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1)
        self._waiting: list[tuple[list[tuple[bytes]], asyncio.Future[None]]] = []
        self._running = False
        self._database: sqlite3.Connection | None = None

    async def add(self, *rows: bytes) -> None:
        """Returns once the rows are durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(([(row,) for row in rows], done))
        if not self._running:
            self._running = True
            asyncio.ensure_future(self._drain())  # noqa: RUF006
        await done

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            rows = [row for rows, _ in batch for row in rows]
            await loop.run_in_executor(self._thread, self._write, rows)
            for _, done in batch:
                done.set_result(None)
        self._running = False

    def _write(self, rows: list[tuple[bytes]]) -> None:
        if self._database is None:
            self._database = sqlite3.connect(self._path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, body BLOB)")
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT INTO job (body) VALUES (?)", rows)
        self._database.execute("COMMIT")


async def serve_grpc(database: Path, port: int) -> None:
    """The bare gRPC server."""
    commits = GroupCommit(database)
    held = job_pb2.Job()
    accepted = api.SubmitJobResponse(job_id="job_00000000000000000000", status=job_pb2.Job.QUEUED)

    async def echo(request: api.SubmitJobRequest, context: Any) -> api.SubmitJobRequest:
        return request

    async def hold(request: job_pb2.Job, context: Any) -> job_pb2.Job:
        held.CopyFrom(request)
        return held

    async def get(request: api.GetJobRequest, context: Any) -> job_pb2.Job:
        return held

    async def durable(request: api.SubmitJobRequest, context: Any) -> api.SubmitJobResponse:
        await commits.add(request.SerializeToString())
        return accepted

    async def batch(
        request: api.BatchSubmitJobsRequest, context: Any
    ) -> api.BatchSubmitJobsResponse:
        await commits.add(*[one.SerializeToString() for one in request.jobs])
        answer = api.BatchSubmitJobsResponse()
        for _ in request.jobs:
            answer.results.add().job.CopyFrom(accepted)
        return answer

    def handler(behaviour: Any, request: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    handlers = {
        "Echo": handler(echo, api.SubmitJobRequest),
        "Hold": handler(hold, job_pb2.Job),
        "Get": handler(get, api.GetJobRequest),
        "Durable": handler(durable, api.SubmitJobRequest),
        "Batch": handler(batch, api.BatchSubmitJobsRequest),
    }
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", REQUEST_BYTES_MAX)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def http_app(upstream: str) -> Starlette:
    """The bare application."""
    channels: list[grpc.aio.Channel] = []

    def call(method: str) -> Any:
        if not channels:
            channels.append(grpc.aio.insecure_channel(upstream))
        return channels[0].unary_unary(f"/{SERVICE}/{method}")

    async def get(request: Request) -> Response:
        message = api.GetJobRequest(job_id=request.path_params["job_id"]).SerializeToString()
        body = await call("Get")(message)
        return Response(body, media_type="application/json")

    async def submit(request: Request) -> Response:
        body = await call("Durable")(await request.body())
        return Response(body, status_code=201, media_type="application/json")

    async def lines(request: Request) -> Response:
        count = int(request.query_params["count"])
        return StreamingResponse(_events(count), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/jobs/{job_id}", get),
            Route("/jobs", submit, methods=["POST"]),
            Route("/lines", lines),
        ]
    )


async def _events(count: int) -> AsyncIterator[bytes]:
    data = (
        'data: {"level":"INFO","message":"line %d of the training","timestamp":"2026-01-01T00:00:00.000Z",'
        '"rank":0,"node_id":"node-0","attempt":1,"stream":"stdout","cursor":"%d.00000000"}\n\n'
    )
    for first in range(0, count, EVENTS_PER_WRITE):
        numbers = range(first, min(first + EVENTS_PER_WRITE, count))
        parts = [f"id: {n}.00000000\nevent: log\n" + data % (n, n) for n in numbers]
        yield "".join(parts).encode()


def main() -> None:
    """`python -m bench.floors grpc|http`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("grpc", "http"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", type=Path)
    parser.add_argument("--upstream", default="")
    options = parser.parse_args()
    if options.kind == "grpc":
        asyncio.run(serve_grpc(options.database, options.port))
    else:
        uvicorn.run(
            http_app(options.upstream),
            host="127.0.0.1",
            port=options.port,
            access_log=False,
            log_level="warning",
        )


if __name__ == "__main__":
    main()
