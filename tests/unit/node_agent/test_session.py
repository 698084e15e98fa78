"""A node that has something new to tell all the time is in contact all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from node_agent.credential import Credential
from node_agent.session import Session
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

if TYPE_CHECKING:  # the class is there for type checkers only
    from scaimind.agent.v1.agent_service_pb2_grpc import AgentServiceAsyncStub


class Busy:
    """Leases of which something is new with every look."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None

    def reports(self) -> list[agent_pb2.ObservedLease]:
        asyncio.get_running_loop().call_soon(self.on_change)
        return []

    def desire(self, leases: Sequence[agent_pb2.DesiredLease]) -> None:
        """Nothing is desired."""


class Coordinator:
    """Desires nothing new, ever: it answers what it is not to hold, and nothing else."""

    def Sync(self, request: agent_pb2.SyncRequest, **_: Any) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if not request.hold_ms:
            answer.set_result(agent_pb2.SyncResponse(leader_epoch=1))
        return answer


async def test_a_node_whose_every_call_is_out_of_date_at_once_is_answered_all_the_same(
    tmp_path: Path,
) -> None:
    contacts: list[int] = []
    often = asyncio.Event()

    def note(sent_ms: int) -> None:
        contacts.append(sent_ms)
        if len(contacts) >= 3:
            often.set()

    session = Session(
        cast("AgentServiceAsyncStub", Coordinator()),
        Busy(),
        node_id="n1",
        incarnation="a",
        generation=1,
        offer=agent_pb2.NodeOffer(),
        hold_ms=100,
        credential=Credential(tmp_path, node_id="n1", join_token=""),
        on_contact=note,
    )
    running = asyncio.create_task(session.run())
    await asyncio.wait_for(often.wait(), 30)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert contacts == sorted(contacts)
