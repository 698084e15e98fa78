"""One program of the cluster: started, started again when it dies, stopped with grace.

Its output goes to a log file. It is told to stop should this process be killed.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scaimind.cli.up.plan import Start

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
STEADY_S = 30.0
GRACE_S = 15.0
MAX_LOG_BYTES = 50 * 1024 * 1024
TAIL_BYTES = 16 * 1024

# Runs in a fresh interpreter before the program takes its place: Linux sends SIGTERM to it when
# its parent dies. Done there, because running code between fork and exec is not safe in a process
# that has gRPC's threads.
_LAUNCH = (
    "import ctypes,os,signal,sys;"
    "ctypes.CDLL(None).prctl(1,signal.SIGTERM,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or sys.exit(1);"
    "os.execv(sys.argv[2],sys.argv[2:])"
)

OnDeath = Callable[["Program", int, float], None]


class Program:
    """A program that is kept up. `on_death(program, code, delay_s)` hears of each death."""

    def __init__(self, start: Start, log_dir: Path, *, on_death: OnDeath) -> None:
        self.name = start.name
        self.log_path = log_dir / f"{start.name}.log"
        self._command = start.command
        self._on_death = on_death
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Starts it, and keeps it up from now on."""
        self._keeper = asyncio.create_task(self._keep(), name=self.name)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal, where it runs."""
        if self._process is not None and self._process.returncode is None:
            # Not through subprocess, which would take the exit code away from asyncio.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Stops it: SIGTERM, and SIGKILL after `grace_s` seconds."""
        self._stopping = True
        if self._keeper is None:
            return
        self.send(signal.SIGTERM)
        if self._process is None or self._process.returncode is not None:
            self._keeper.cancel()
        _, late = await asyncio.wait([self._keeper], timeout=grace_s)
        if late:
            self.send(signal.SIGKILL)
            await asyncio.wait([self._keeper])

    def last_lines(self, count: int = 20) -> list[str]:
        """The end of its log."""
        try:
            with self.log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return text.splitlines()[-count:]

    async def _keep(self) -> None:
        delay_s = FIRST_DELAY_S
        while True:
            began_at = time.monotonic()
            code = await self._once()
            if self._stopping:
                return
            if time.monotonic() - began_at >= STEADY_S:
                delay_s = FIRST_DELAY_S
            self._on_death(self, code, delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    async def _once(self) -> int:
        """Runs it once; its exit code, negative for a signal."""
        log = _open_log(self.log_path)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *_launched(self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        finally:
            os.close(log)
        if self._stopping:
            self.send(signal.SIGTERM)
        return await self._process.wait()


def _launched(command: list[str]) -> list[str]:
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command]


def _environment() -> dict[str, str]:
    """This environment without the caller's key, which is none of the programs' business."""
    return {key: value for key, value in os.environ.items() if key != "MIND_API_KEY"}


def _open_log(path: Path) -> int:
    """Opens a log for appending; one that has grown large is put aside first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
