"""A process that appends to SQLite streams until it is killed, and tells each append that returned.

python -m tests.contract.streams.writer FILE
"""

import asyncio
import sys

from coordinator.streams.sqlite import SqliteStreams
from tests.contract.streams.samples import batch, point, source

LINES = 10
RANKS = 3


def line(rank: int, number: int) -> str:
    return f"{rank}-{number:06d}"  # 8 bytes, 9 with its end


async def write(path: str) -> None:
    streams = SqliteStreams(path)
    await streams.open()

    async def push(rank: int) -> None:
        of = source(rank=rank)
        (begin,) = await streams.append([batch(0, of=of)])
        while True:
            first = begin // 9
            some = [line(rank, number) for number in range(first, first + LINES)]
            one = batch(begin, some, of=of, points=[point(first)], point_ends=[begin + 9])
            (begin,) = await streams.append([one])
            print(rank, begin, flush=True)

    await asyncio.gather(*(push(rank) for rank in range(RANKS)))


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1]))
