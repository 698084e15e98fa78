"""When each part of the cluster can be used. Every wait here ends: its caller bounds it."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import grpc.aio
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scaimind.channel import Tls, open_aio
from scaimind.cli.up.plan import Address
from scaimind.client import AsyncClient, MindError
from scaimind.client.connection import KEY_FILE, read_key_file
from scaimind.v1 import node_pb2

LOOK_S = 0.05
CHECK_S = 1.0


async def _until(look: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await look():
            return
        await asyncio.sleep(LOOK_S)


async def coordinator_serves(address: Address) -> None:
    """Returns once the coordinator's health is SERVING."""
    options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 50)]
    async with open_aio(str(address), options, tls=Tls.from_environment()) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        await _until(lambda: _is_serving(health))


async def _is_serving(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=CHECK_S)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def gateway_serves(address: Address) -> None:
    """Returns once the gateway says that it is ready."""
    async with httpx.AsyncClient(timeout=CHECK_S, trust_env=False) as http:
        await _until(lambda: _is_ready(http, f"http://{address}/readyz"))


async def _is_ready(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.HTTPError:
        return False


async def nodes_joined(client: AsyncClient, names: Collection[str], *, since_s: float) -> None:
    """Returns once all these nodes have been heard since the Unix time `since_s`.

    A node that was drained earlier joins as such: it need not be READY.
    """

    async def look() -> bool:
        try:
            here = {node.node_id async for node in client.nodes() if _is_in(node, since_s)}
        except MindError:
            return False
        return here.issuperset(names)

    await _until(look)


def _is_in(node: node_pb2.Node, since_s: float) -> bool:
    known = node_pb2.Node.READY, node_pb2.Node.DRAINING, node_pb2.Node.DRAINED
    seen_at = node.last_seen_at.seconds + node.last_seen_at.nanos / 1e9
    return node.status in known and seen_at >= since_s - 1


def admin_client(data_dir: Path, address: Address) -> AsyncClient:
    """A client with the admin key that the coordinator wrote."""
    return AsyncClient(str(address), read_key_file(data_dir / KEY_FILE), timeout_s=5, retry_s=1)


async def running_jobs(client: AsyncClient) -> int:
    """How many jobs hold devices; 0 where the coordinator does not tell in time."""
    jobs: set[str] = set()
    try:
        async with asyncio.timeout(2 * CHECK_S):
            async for node in client.nodes():
                jobs.update(node.running_job_ids)
    except (MindError, TimeoutError):
        return 0
    return len(jobs)
