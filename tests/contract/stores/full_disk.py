"""A process whose files may not grow beyond a limit, as on a full disk; it goes on when there is room.

python -m tests.contract.stores.full_disk FILE
"""

import asyncio
import resource
import sys

from coordinator.store.protocol import StoreUnavailable
from coordinator.store.sqlite import SqliteStore
from tests.contract.stores.samples import batch, job

LIMIT_BYTES = 1 << 20
NO_LIMIT = resource.RLIM_INFINITY


async def fill(path: str) -> None:
    store = SqliteStore(path)
    await store.open()
    epoch, version = await store.acquire("filler"), 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, NO_LIMIT))
    try:
        while True:
            version = await store.commit(
                batch(f"b{version}", job(version)), epoch=epoch, expected_version=version
            )
    except StoreUnavailable as error:
        print(version, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (NO_LIMIT, NO_LIMIT))
    again = batch(f"b{version}", job(version))
    print(await store.commit(again, epoch=epoch, expected_version=version))
    await store.close()


if __name__ == "__main__":
    asyncio.run(fill(sys.argv[1]))
