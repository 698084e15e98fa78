"""Ports that stay ours: a program that is killed and started again must find its port free.

They are taken from below the range that Linux hands out to clients, and held by a lock for as long
as the holder lives, so that tests in several processes never meet.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from types import TracebackType

FIRST, LAST = 10_000, 19_999
TRIES = 2_000


class Port:
    """One TCP port of 127.0.0.1; `close` gives it back."""

    def __init__(self) -> None:
        folder = Path(tempfile.gettempdir()) / f"mindcoordinator-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for number in random.sample(range(FIRST, LAST + 1), TRIES):
            lock = os.open(folder / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _take(lock) and _is_free(number):
                self.number, self._lock = number, lock
                return
            os.close(lock)
        raise RuntimeError("no free port was found")

    def __enter__(self) -> Port:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def __str__(self) -> str:
        return f"127.0.0.1:{self.number}"

    def close(self) -> None:
        """Gives the port back."""
        os.close(self._lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True
