"""A process that commits to a SQLite store until it is killed, and tells each commit that returned.

python -m tests.contract.stores.writer FILE
"""

import asyncio
import sys

from coordinator.core.records import JobStatus
from coordinator.store.sqlite import SqliteStore
from tests.contract.stores.samples import batch, job, request

JOBS_PER_BATCH = 5


async def write(path: str) -> None:
    store = SqliteStore(path)
    await store.open()
    epoch = await store.acquire("writer")
    version = (await store.load()).version
    while True:
        jobs = [
            job(version * JOBS_PER_BATCH + number, status=JobStatus.QUEUED)
            for number in range(JOBS_PER_BATCH)
        ]
        version = await store.commit(
            batch(f"b{version}", *jobs, request(f"r{version}")),
            epoch=epoch,
            expected_version=version,
        )
        print(version, flush=True)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1]))
