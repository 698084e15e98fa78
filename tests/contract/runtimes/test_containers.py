"""What holds of containers alone: their engine may die, they are found by label, GPUs are never made up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.core.leases import Category, State
from node_agent.runtime.containers import Containers
from node_agent.runtime.protocol import Container
from tests.contract.runtimes.conftest import Bench, a_bench, until_gone
from tests.support.engine import IMAGE, Engine
from tests.support.waiting import until

COUNT = "n=0; while [ ! -e end ]; do echo $n; n=$((n+1)); sleep 0.01; done; echo last; exit 3"


@pytest.fixture
async def bench(engine: Engine, tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench of containers."""
    async with a_bench(tmp_path, engine) as bench:
        yield bench


async def until_no_container(engine: Engine) -> None:
    """Waits until the engine has no container of a rank."""
    await asyncio.to_thread(until, lambda: not engine.containers(), "no container is left")


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
    await until_no_container(engine)


async def test_containers_that_no_state_knows_are_ended_and_those_of_others_are_not(
    bench: Bench, engine: Engine
) -> None:
    known, unknown = (bench.start("/bin/sleep", "600") for _ in range(2))
    await bench.running(known)
    await bench.running(unknown)
    pids = [json.loads((one / "started.json").read_text())["pid"] for one in (known, unknown)]
    other = Containers(engine.rules(bench.folder), mark="another node")
    await other.end_strays([])
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
    await until_no_container(engine)


async def test_an_image_that_is_nowhere_is_named_and_nothing_is_left(
    bench: Bench, engine: Engine
) -> None:
    bench.container = Container("localhost/no-such-image:1")
    rank = await bench.ended(bench.start("/bin/true"))
    assert rank.fault is not None
    assert rank.fault.category is Category.IMAGE
    assert "localhost/no-such-image:1" in rank.fault.message
    assert IMAGE not in rank.fault.message
    await until_no_container(engine)
