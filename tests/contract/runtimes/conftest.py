"""The runtimes under test, and a bench that starts ranks on them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from node_agent.core.leases import Rank, State
from node_agent.ranks import EVENTS
from node_agent.runtime.contact import Contact
from node_agent.runtime.containers import Containers
from node_agent.runtime.kernel import boot_now_ms
from node_agent.runtime.process import ProcessRuntime
from node_agent.runtime.protocol import Container, Limits, RankOrder, Runtime
from node_agent.runtime.rules import ProcessRules
from tests.support.engine import IMAGE, Engine

WAIT_S = 90.0
NO_LIMITS = Limits()


class Bench:
    """Starts ranks from small scripts and waits for what becomes of them."""

    def __init__(
        self, runtime: Runtime, contact: Contact, folder: Path, *, container: Container | None
    ) -> None:
        self.runtime = runtime
        self.container = container
        self.after_ms = 1_500 if container else 1_000  # of silence, after which a rank is to stop
        self.contact = contact
        self.folder = folder
        self._count = 0
        runtime.on_change = self._on_change
        self._waiters: list[asyncio.Event] = []

    def _on_change(self, path: Path) -> None:
        for waiter in self._waiters:
            waiter.set()

    def start(
        self,
        *argv: str,
        env: dict[str, str] | None = None,
        fence_after_ms: int = 0,
        limits: Limits = NO_LIMITS,
    ) -> Path:
        """Starts a rank; returns its folder."""
        path = self.folder / f"rank-{self._count}"
        path.mkdir(parents=True)
        order = RankOrder(
            path=path,
            rank=self._count,
            argv=argv,
            env={"PATH": f"/bin:{os.defpath}", "MIND_EVENTS": str(path / EVENTS), **(env or {})},
            cwd=self.folder,
            subject="custom_script_path",
            fence_after_ms=fence_after_ms,
            limits=limits,
            container=self.container,
        )
        self._count += 1
        self.runtime.start(order)
        return path

    def python(self, code: str, *, fence_after_ms: int = 0, limits: Limits = NO_LIMITS) -> Path:
        """Starts a rank that runs Python code."""
        argv = (sys.executable, "-S", "-u", "-c", code)
        return self.start(*argv, fence_after_ms=fence_after_ms, limits=limits)

    async def until(self, path: Path, wanted: Callable[[Rank], bool]) -> Rank:
        """Waits until the rank is as wanted."""
        waiter = asyncio.Event()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(WAIT_S):
                while not wanted(self.runtime.observe(path)):
                    waiter.clear()
                    await waiter.wait()
        finally:
            self._waiters.remove(waiter)
        return self.runtime.observe(path)

    async def in_contact(self, path: Path, wanted: Callable[[Rank], bool]) -> None:
        """The coordinator answers all the time, until the rank is as wanted."""
        async with asyncio.timeout(WAIT_S):
            while not wanted(self.runtime.observe(path)):
                self.contact.note(boot_now_ms())
                await asyncio.sleep(0.01)

    async def running(self, path: Path) -> Rank:
        """Waits until the rank has started."""
        return await self.until(path, lambda rank: rank.state >= State.RUNNING)

    async def ended(self, path: Path) -> Rank:
        """Waits until the rank has ended."""
        return await self.until(path, lambda rank: rank.state is State.ENDED)

    async def gone(self, path: Path) -> None:
        """Waits until no process is left of those whose ids the rank printed."""
        if self.container is None:
            for pid in (path / "stdout").read_text().split():
                await until_gone(int(pid))
        mark = f"MIND_EVENTS={path / EVENTS}".encode()
        async with asyncio.timeout(WAIT_S):
            while True:
                if not any(mark in environ for environ in _environs()):
                    return
                await asyncio.sleep(0.02)

    async def printed(self, path: Path, text: str) -> str:
        """Waits until the rank's stdout holds `text`; returns all of it."""
        return await until_holds(path / "stdout", text)


def _environs() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            yield path.read_bytes()


async def until_holds(file: Path, text: str) -> str:
    """Waits until a file holds `text`; returns all that it holds."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = ""
            with suppress(FileNotFoundError):
                found = file.read_text(errors="replace")
            if text in found:
                return found
            await asyncio.sleep(0.005)


async def until_gone(pid: int) -> None:
    """Waits until no process has this id (a zombie counts as none)."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    return
            except OSError:
                return
            await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A container engine for all tests."""
    with Engine() as engine:
        yield engine


@pytest.fixture(params=["process", "container"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench on each runtime; ranks that still run at the end are stopped."""
    engine = request.getfixturevalue("engine") if request.param == "container" else None
    async with a_bench(tmp_path, engine) as bench:
        yield bench


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench of processes, for what containers do not do."""
    async with a_bench(tmp_path, None) as bench:
        yield bench


@asynccontextmanager
async def a_bench(
    folder: Path,
    engine: Engine | None,
    rules: ProcessRules | None = None,
    *,
    gpus: str = "nvidia",
) -> AsyncIterator[Bench]:
    """A bench of containers where there is an engine; ranks that run at the end are stopped."""
    containers = container = None
    if engine is not None:
        containers = Containers(engine.rules(folder, gpus=gpus), mark=str(folder))
        container = Container(IMAGE)
        folder.chmod(0o755)  # for the containers' user
    async with asyncio.TaskGroup() as tasks:
        contact = Contact(str(folder / "contact"))
        runtime: Runtime = ProcessRuntime(
            tasks,
            contact,
            mark=str(folder),
            rules=rules or ProcessRules(),
            containers=containers,
        )
        await runtime.open()
        bench = Bench(runtime, contact, folder, container=container)
        yield bench
        for path in sorted(folder.glob("rank-*")):
            runtime.stop(path, 0)
            await bench.ended(path)
        await runtime.close()
