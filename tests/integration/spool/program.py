"""A program that is nothing but a spool: `python -m … ADDRESS FOLDER`, to be killed by a test.

It watches rank 0 of the lease in FOLDER until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from grpc import aio

from node_agent.ranks import RankFiles
from node_agent.spool import Spool
from scaimind.agent.v1.agent_service_pb2_grpc import AgentServiceStub


async def main(address: str, folder: Path) -> None:
    """Runs until it is killed."""
    stub = AgentServiceStub(aio.insecure_channel(address))
    spool = Spool(lambda: stub.Push(), node_id="node-1")
    checkpoints = folder.parent / "checkpoints-job-1"
    rank = RankFiles(folder / "rank-0", "job-1", "job-1", 1, folder.name, 1, 0, checkpoints, 3)
    spool.watch(rank)
    await spool.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
