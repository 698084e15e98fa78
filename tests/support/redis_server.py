"""A real redis-server in a folder of its own, on a socket in that folder.

`shared` is one for all tests of a process that only need some Redis: they keep apart by prefix.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType

import redis

from tests.support.waiting import until

START_S = 60.0
LOG = "appendonlydir"


class RedisServer:
    """Keeps a log (appendonly), so that what it holds survives its own death.

    Args:
        folder: short, because a socket's path may have no more than 100 characters.
        fsync: `always`, `everysec` or `no`.
        port: of 127.0.0.1, beside the socket; 0 for none.
    """

    def __init__(self, folder: Path, *, fsync: str = "always", port: int = 0) -> None:
        self.folder = folder
        self._fsync, self._port = fsync, port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def url(self) -> str:
        if self._port:
            return f"redis://127.0.0.1:{self._port}/0"
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it on what the folder holds, and waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        words += ["--unixsocket", str(self._socket), "--dir", str(self.folder)]
        words += ["--appendonly", "yes", "--appendfsync", self._fsync]
        with (self.folder / "redis.log").open("ab") as out:
            self._process = subprocess.Popen(
                ["redis-server", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        until(self._answers, lambda: f"Redis answers\n{self._story()}", within_s=START_S)

    def kill(self) -> None:
        """kill -9; what it wrote stays."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Afterwards it holds what it held before, as a copy that lacks the last writes. Call it, and
        leave it, while it is down."""
        log, copy = self.folder / LOG, self.folder / "copy"
        shutil.copytree(log, copy)
        yield
        shutil.rmtree(log)
        copy.rename(log)

    def client(self) -> redis.Redis:
        """For a test that wants to look, or to do harm."""
        return redis.Redis(unix_socket_path=str(self._socket))

    @property
    def _socket(self) -> Path:
        return self.folder / "redis.sock"

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Redis ended\n{self._story()}"
        client = self.client()
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _story(self) -> str:
        return (self.folder / "redis.log").read_text(errors="replace")[-2000:]


@cache
def shared() -> RedisServer:
    """One that runs until the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    server = RedisServer(folder, fsync="no")

    def end() -> None:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    server.start()
    return server
