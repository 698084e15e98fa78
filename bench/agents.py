"""Many agents in one process: the real link to the coordinator, their telemetry, and nodes that run nothing.

One JSON line asks, one answers. `{"kind": "mark"}` forgets whom the coordinator has answered;
`{"kind": "back", "limit_s": 60}` waits until all were answered since, and tells how many `seconds` that
took; `{"kind": "gaps"}` tells the longest time (`seconds`) that any agent went without an answer since.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from node_agent.credential import Credential
from node_agent.session import CHANNEL_OPTIONS, Session
from node_agent.telemetry.local import SimulatedProbe
from node_agent.telemetry.reporter import INTERVAL_S, to_request
from node_agent.telemetry.samples import Host, Sample
from scaimind.agent.v1 import agent_service_pb2 as api
from scaimind.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from scaimind.service import log as service_log
from scaimind.v1 import node_pb2

if TYPE_CHECKING:  # the class is there for type checkers only
    from scaimind.agent.v1.agent_service_pb2_grpc import AgentServiceAsyncStub

DEVICES = 8
TYPE = "L40S"
HOLD_MS = 5_000


class Node:
    """What the link needs of a keeper: nothing to report, and nothing is done."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.answered_s = 0.0
        self.longest_s = 0.0

    def reports(self) -> list[api.ObservedLease]:
        """No lease."""
        return []

    def desire(self, leases: Sequence[api.DesiredLease]) -> None:
        """An answer has come."""
        now_s = time.monotonic()
        self.longest_s = max(self.longest_s, now_s - self.answered_s)
        self.answered_s = now_s


def _agent(
    node: Node, number: int, *, server: str, folder: Path, token: str, hold_ms: int
) -> tuple[Session, Coroutine[Any, Any, None]]:
    # a connection of its own for each, as separate machines have
    channel = grpc.aio.insecure_channel(
        server, options=(*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    )
    offer = api.NodeOffer(
        address="127.0.0.1",
        simulated=True,
        devices=[
            node_pb2.Device(device_id=f"sim-{number}-{n}", index=n, type=TYPE, healthy=True)
            for n in range(DEVICES)
        ],
        cpu_count=64,
        memory_bytes=1 << 40,
        disk_bytes=1 << 42,
    )
    node_id = f"node-{number:04d}"
    home = folder / node_id
    home.mkdir(parents=True, exist_ok=True)
    stub = AgentServiceStub(channel)
    credential = Credential(home, node_id=node_id, join_token=token)
    session = Session(
        stub,
        node,
        node_id=node_id,
        incarnation=f"bench-{number}",
        generation=int(time.time()),
        offer=offer,
        hold_ms=hold_ms,
        credential=credential,
        on_contact=lambda sent_ms: None,
    )
    return session, _tell(stub, credential, node_id)


async def _tell(stub: AgentServiceAsyncStub, credential: Credential, node_id: str) -> None:
    """Reports what simulated devices measure, as often as an agent does."""
    probe, host = SimulatedProbe([TYPE] * DEVICES), Host(1.0, 1 << 30, 1 << 40, 1 << 30, 1 << 42)
    await asyncio.sleep(random.uniform(0, INTERVAL_S))
    while True:
        sample = Sample(time.time_ns() // 1_000_000, host, probe.read())
        with suppress(grpc.RpcError):  # it has not joined, or the coordinator is away
            request = to_request(sample, node_id=node_id)
            await stub.ReportTelemetry(request, metadata=credential.metadata, timeout=INTERVAL_S)
        await asyncio.sleep(INTERVAL_S)


async def _answer(order: dict[str, Any], nodes: Sequence[Node], *, marked_s: float) -> float:
    if order["kind"] == "gaps":
        now_s = time.monotonic()
        return max(max(node.longest_s, now_s - node.answered_s) for node in nodes)
    give_up_s = time.monotonic() + order["limit_s"]
    while any(node.answered_s < marked_s for node in nodes):
        if time.monotonic() > give_up_s:
            away = sum(node.answered_s < marked_s for node in nodes)
            raise TimeoutError(f"{away} agents are not back")
        await asyncio.sleep(0.02)
    return max(node.answered_s for node in nodes) - marked_s


async def _serve(server: str, folder: Path, *, token: str, count: int, hold_ms: int) -> None:
    nodes = [Node() for _ in range(count)]
    words = {"server": server, "token": token}
    agents = [
        _agent(node, number, **words, folder=folder, hold_ms=hold_ms)
        for number, node in enumerate(nodes)
    ]
    links = [
        asyncio.create_task(work) for session, tells in agents for work in (session.run(), tells)
    ]
    marked_s = time.monotonic()
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        if order["kind"] == "mark":
            marked_s = time.monotonic()
            for node in nodes:
                node.longest_s = 0.0
            seconds = 0.0
        else:
            seconds = await _answer(order, nodes, marked_s=marked_s)
        print(json.dumps({"seconds": seconds}), flush=True)
    for link in links:
        link.cancel()


def main() -> None:
    """Runs until its input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.agents", description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--hold-ms", type=int, default=HOLD_MS)
    options = parser.parse_args()
    service_log.configure(level="ERROR", json=False)
    asyncio.run(
        _serve(
            options.server,
            options.folder,
            token=options.token,
            count=options.count,
            hold_ms=options.hold_ms,
        )
    )


if __name__ == "__main__":
    main()
