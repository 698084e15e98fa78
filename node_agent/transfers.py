"""The transfers that a lease waits for: what it goes on from before its start, its model after its end.

Each is tried some times, for a store may be away for a moment. A lease that is to stop waits for them no
longer than its ranks would get.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from node_agent.core.leases import Category, Fault
from node_agent.spool.proof import Unproven, manifest_path, prove
from node_agent.uploads.mover import MoverProtocol
from node_agent.uploads.orders import Download, Failed, Order, Upload
from node_agent.uploads.places import is_remote, output_uri, restored_path, resumed_from
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

TRIES = 5
BACKOFF_FIRST_S = 1.0


class Transfers:
    """Those of the lease with the folder `path`."""

    def __init__(self, mover: MoverProtocol, path: Path) -> None:
        self._mover = mover
        self._path = path
        self._moving: asyncio.Task[Any] | None = None
        self._late = threading.Event()  # nobody waits any more

    def stop(self, grace_s: float) -> None:
        """Gives up what is under way after a grace."""
        asyncio.get_running_loop().call_later(grace_s, self._give_up)

    async def restore(self, spec: agent_pb2.LeaseSpec) -> Fault | None:
        """Brings here what the lease goes on from, if that is in a store; what kept it from doing so."""
        uri = resumed_from(spec)
        if not is_remote(uri):
            return None
        target = restored_path(uri, self._path)
        order = Download(uri, str(target), spec.resume_from.digest)
        return await self._done(self._move(order), "the checkpoint to go on from")

    async def send_model(self, spec: agent_pb2.LeaseSpec, output: Path) -> tuple[str, Fault | None]:
        """Brings the model where the job wants it; where it is then, or what kept it from getting there."""
        uri = output_uri(spec)
        if not uri:
            return output.as_uri(), None
        fault = await self._done(self._send(output, uri), "the model is not uploaded")
        return ("", fault) if fault else (uri, None)

    async def _send(self, output: Path, uri: str) -> None:
        try:
            await asyncio.to_thread(prove, output, cancelled=self._late)
        except Unproven as error:
            raise Failed(str(error), lasting=True) from None
        journal = self._path / "uploads" / "model"
        await self._move(Upload(str(output), uri, str(manifest_path(output)), str(journal)))

    async def _done(self, work: Coroutine[Any, Any, None], what: str) -> Fault | None:
        if self._late.is_set():
            work.close()
            return Fault(Category.STORAGE, f"{what}: it was stopped before")
        self._moving = asyncio.ensure_future(work)
        try:
            await asyncio.wait((self._moving,))
            if self._moving.cancelled():
                return Fault(Category.STORAGE, f"{what}: it was stopped before")
            await self._moving
        except Failed as failed:
            return Fault(Category.STORAGE, f"{what}: {failed}")
        finally:
            self._moving.cancel()
        return None

    async def _move(self, order: Order) -> None:
        for number in range(TRIES):
            try:
                await self._mover(order)
            except Failed as failed:
                if failed.lasting or number == TRIES - 1:
                    raise
                await asyncio.sleep(BACKOFF_FIRST_S * 2.0**number)
            else:
                return

    def _give_up(self) -> None:
        self._late.set()
        if self._moving is not None:
            self._moving.cancel()
