"""What holds of containers alone: their engine may die, they are found by label, GPUs are never made up."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.core.leases import Category, Rank, State
from node_agent.runtime.containers import Containers
from node_agent.runtime.protocol import Container, Limits
from tests.contract.runtimes.conftest import Bench, a_bench, until_gone
from tests.support.engine import IMAGE, Engine
from tests.support.waiting import until

COUNT = "n=0; while [ ! -e end ]; do echo $n; n=$((n+1)); sleep 0.01; done; echo last; exit 3"


@pytest.fixture
async def bench(engine: Engine, tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench of containers."""
    async with a_bench(tmp_path, engine) as bench:
        yield bench


async def until_no_container(bench: Bench, engine: Engine) -> None:
    """Waits until the engine has no container of the bench."""
    await asyncio.to_thread(
        until,
        lambda: not engine.containers(str(bench.folder)),
        lambda: f"none is left of {engine.containers(str(bench.folder))}",
    )


async def test_an_engine_that_is_killed_harms_neither_a_rank_nor_its_lines_nor_its_exit_code(
    bench: Bench, engine: Engine
) -> None:
    path = bench.start("/bin/sh", "-c", COUNT)
    await bench.printed(path, "5\n")
    await asyncio.to_thread(engine.kill)
    at = len((path / "stdout").read_text().split())
    await bench.printed(path, f"\n{at + 20}\n")
    (bench.folder / "end").touch()
    await bench.printed(path, "last")
    await asyncio.to_thread(engine.start)
    assert (await bench.ended(path)).exit_code == 3
    said = (path / "stdout").read_text().split()
    assert said == [*map(str, range(len(said) - 1)), "last"]


async def test_a_stop_needs_no_engine(bench: Bench, engine: Engine) -> None:
    path = bench.start("/bin/sleep", "600")
    await bench.running(path)
    pid = json.loads((path / "started.json").read_text())["pid"]
    await asyncio.to_thread(engine.kill)
    bench.runtime.stop(path, 60_000)
    await until_gone(pid)
    await asyncio.to_thread(engine.start)
    rank = await bench.ended(path)
    assert (rank.signal, rank.stopped) == (signal.SIGTERM, True)


async def test_a_container_whose_supervisor_is_lost_is_ended_and_removed(
    bench: Bench, engine: Engine
) -> None:
    path = bench.start("/bin/sleep", "600")
    await bench.running(path)
    started = json.loads((path / "started.json").read_text())
    os.kill(started["supervisor_pid"], signal.SIGKILL)
    rank = await bench.ended(path)
    assert rank.fault is not None
    assert rank.fault.category is Category.NODE_LOST
    await until_gone(started["pid"])
    await until_no_container(bench, engine)


# the engine's library drops a socket that is refused without closing it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_container_that_could_not_be_removed_is_removed_once_there_is_an_engine_again(
    bench: Bench, engine: Engine
) -> None:
    path = bench.start("/bin/sleep", "600")
    await bench.running(path)
    await asyncio.to_thread(engine.kill)
    os.kill(json.loads((path / "started.json").read_text())["supervisor_pid"], signal.SIGKILL)
    await bench.ended(path)
    await asyncio.to_thread(engine.start)
    await until_no_container(bench, engine)
    gc.collect()  # while it is this test that drops it


async def test_containers_that_no_state_knows_are_ended_and_those_of_others_are_not(
    bench: Bench, engine: Engine
) -> None:
    known, unknown = (bench.start("/bin/sleep", "600") for _ in range(2))
    await bench.running(known)
    await bench.running(unknown)
    pids = [json.loads((one / "started.json").read_text())["pid"] for one in (known, unknown)]
    other = Containers(engine.rules(bench.folder), mark="another node")
    assert await other.end_strays(list)
    assert bench.runtime.observe(unknown).state is State.RUNNING
    await bench.runtime.end_strays([known])
    await until_gone(pids[1])
    assert Path(f"/proc/{pids[0]}").exists()
    assert bench.runtime.observe(known).state is State.RUNNING
    await other.close()


async def test_a_rank_whose_gpus_the_engine_does_not_give_is_not_started(
    bench: Bench, engine: Engine
) -> None:
    assert bench.container is not None
    bench.container = replace(bench.container, gpus=("GPU-1a",))
    rank = await bench.ended(bench.start("/bin/true"))
    assert rank.fault is not None
    assert rank.fault.category is Category.NODE_LOST
    assert "GPU" in rank.fault.message
    await until_no_container(bench, engine)


@pytest.fixture
def cdi() -> Iterator[str]:
    """A kind of CDI devices, of which this machine has one: GPU-1a."""
    kind = f"mind.test/gpu{os.getpid()}"
    device = {"name": "GPU-1a", "containerEdits": {"env": ["GIVEN=GPU-1a"]}}
    file = Path(f"/var/run/cdi/mind-test-{os.getpid()}.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"cdiVersion": "0.3.0", "kind": kind, "devices": [device]}))
    yield kind
    file.unlink()


async def test_gpus_are_given_as_cdi_devices_and_all_else_is_as_without(
    engine: Engine, tmp_path: Path, cdi: str
) -> None:
    look = "echo $GIVEN; id -u; grep -E 'NoNewPrivs|CapBnd' /proc/self/status; touch /x; pwd"
    said = []
    for gpus in ((), ("GPU-1a",)):
        folder = tmp_path / f"gpus-{len(gpus)}"
        folder.mkdir()
        async with a_bench(folder, engine, gpus=cdi) as bench:
            bench.container = Container(IMAGE, gpus=gpus)
            path = bench.start("/bin/sh", "-c", look, limits=Limits(64 << 20, 500, 50))
            assert (await bench.ended(path)).succeeded, (path / "stderr").read_text()
            said.append((path / "stdout").read_text().split())
            assert "Read-only file system" in (path / "stderr").read_text()
    without, given = said
    assert given[0] == "GPU-1a"
    assert given[1:-1] == without[:-1]
    assert given[-1] == str(folder)


async def test_a_cdi_device_that_is_missing_is_said_so(
    engine: Engine, tmp_path: Path, cdi: str
) -> None:
    async with a_bench(tmp_path, engine, gpus=cdi) as bench:
        bench.container = Container(IMAGE, gpus=("GPU-none",))
        rank = await bench.ended(bench.start("/bin/true"))
        assert rank.fault is not None
        assert rank.fault.category is Category.NODE_LOST
        assert "GPU-none" in rank.fault.message


async def test_an_image_that_is_nowhere_is_named_and_nothing_is_left(
    bench: Bench, engine: Engine
) -> None:
    bench.container = Container("localhost/no-such-image:1")
    rank = await bench.ended(bench.start("/bin/true"))
    assert rank.fault is not None
    assert rank.fault.category is Category.IMAGE
    assert "localhost/no-such-image:1" in rank.fault.message
    assert IMAGE not in rank.fault.message
    await until_no_container(bench, engine)


async def test_an_image_that_cannot_be_fetched_is_prepared_and_then_named(bench: Bench) -> None:
    states: list[State] = []

    def seen(rank: Rank) -> bool:
        states.append(rank.state)
        return rank.state is State.ENDED

    bench.container = Container("localhost:1/no/such:1")
    path = bench.start("/bin/true")
    rank = await bench.until(path, seen)
    assert State.PREPARING in states
    assert rank.fault is not None
    assert rank.fault.category is Category.IMAGE
    assert rank.fault.message.startswith("resource_config.image: ")


async def test_a_stop_does_not_wait_for_an_image(bench: Bench) -> None:
    bench.container = Container("localhost:1/no/such:2")
    path = bench.start("/bin/true")
    await bench.until(path, lambda rank: rank.state is State.PREPARING)
    bench.runtime.stop(path, 60_000)
    rank = await bench.ended(path)
    assert (rank.stopped, rank.fault, rank.started_at_ms) == (True, None, None)


async def test_ranks_that_belong_together_meet_and_share_memory_whoever_ends_first(
    bench: Bench, engine: Engine
) -> None:
    bench.container = Container(IMAGE, together="lease.1", shm_bytes=8 << 20)
    early = bench.start("/bin/true")
    listens = bench.python(
        "import socket; s = socket.create_server(('127.0.0.1', 5555)); print('up')\n"
        "s.accept(); print(open('/dev/shm/said').read())"
    )
    await bench.printed(listens, "up")
    assert (await bench.ended(early)).succeeded
    talks = bench.start("/bin/sh", "-c", "echo hello >/dev/shm/said; nc 127.0.0.1 5555 </dev/null")
    assert (await bench.ended(listens)).succeeded
    assert (listens / "stdout").read_text() == "up\nhello\n\n"
    await bench.ended(talks)
    await until_no_container(bench, engine)


async def test_an_agent_that_starts_again_keeps_what_its_ranks_share(
    bench: Bench, engine: Engine
) -> None:
    bench.container = Container(IMAGE, together="lease.2")
    path = bench.start("/bin/sleep", "600")
    await bench.running(path)
    await bench.runtime.end_strays([path])
    assert len(await asyncio.to_thread(engine.containers, str(bench.folder))) == 2
    bench.runtime.stop(path, 60_000)
    await bench.ended(path)
    await until_no_container(bench, engine)
