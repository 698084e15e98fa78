"""A real Redis for the tests of what gateways share."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import cast

import redis

from tests.support.ports import Port
from tests.support.waiting import until

NOT_KEPT = ("--save", "", "--appendonly", "no", "--dir")


class Redis:
    """`redis-server` on a free port, with nothing on disk."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        assert program, "these tests need redis-server"
        self._port = Port()
        self.url = f"redis://{self._port}/0"
        self._client = redis.Redis.from_url(self.url)
        self._process = subprocess.Popen(
            [
                program,
                "--port",
                str(self._port.number),
                "--bind",
                "127.0.0.1",
                *NOT_KEPT,
                str(folder),
            ],
            stdout=subprocess.DEVNULL,
        )
        until(self._answers, "Redis answers")

    def __enter__(self) -> Redis:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()
        self._client.close()
        self._port.close()

    def stop(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()

    def empty(self) -> None:
        """Forgets everything."""
        self._client.flushall()

    def lives(self) -> list[int]:
        """Seconds that each key has left."""
        return [self._client.ttl(key) for key in cast(list[bytes], self._client.keys())]

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False
