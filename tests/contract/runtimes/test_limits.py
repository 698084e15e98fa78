"""What a rank may use, and who it is: control groups and users, of processes and of containers."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node_agent.core.leases import Category
from node_agent.runtime import cgroups
from node_agent.runtime.protocol import Limits
from node_agent.runtime.rules import ProcessRules
from tests.contract.runtimes.conftest import Bench, a_bench

MIB = 1 << 20
NOBODY = 65534
EATS = "x=0123456789abcdef; while :; do x=$x$x; done"


@pytest.fixture(params=["process", "container"])
async def limited(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench whose processes have groups, and run as nobody."""
    engine = request.getfixturevalue("engine") if request.param == "container" else None
    group = f"/mind-test-{os.getpid()}"
    cgroups.delegate(group)
    tmp_path.chmod(0o755)
    async with a_bench(tmp_path, engine, ProcessRules(user=(NOBODY, NOBODY), group=group)) as bench:
        yield bench
    left = _groups(group)
    for folder in Path(cgroups.ROOT).glob(f"*{group}"):
        folder.rmdir()
    assert not left


def _groups(group: str) -> list[Path]:
    """What is left of the ranks' groups."""
    return [path for path in Path(cgroups.ROOT).glob(f"*{group}/*") if path.is_dir()]


async def test_memory_that_runs_out_is_told_from_a_kill(limited: Bench) -> None:
    limits = Limits(memory_bytes=64 * MIB)
    hungry = limited.start("/bin/sh", "-c", EATS, limits=limits)
    killed = limited.start("/bin/sh", "-c", "kill -9 $$", limits=limits)
    rank = await limited.ended(hungry)
    assert rank.fault is not None
    assert rank.fault.category is Category.HOST_OOM
    assert (await limited.ended(killed)).fault is None


async def test_processes_are_as_many_as_they_may_be(limited: Bench) -> None:
    path = limited.start(
        "/bin/sh", "-c", "for n in 1 2 3 4 5 6 7 8 9; do sleep 60 & done", limits=Limits(pids=6)
    )
    rank = await limited.ended(path)
    assert rank.failed
    assert "fork" in (path / "stderr").read_text()


async def test_processor_time_is_as_much_as_it_may_be(limited: Bench) -> None:
    os.mkfifo(limited.folder / "wait")
    show = "cat /proc/self/cgroup; read x < wait"
    path = limited.start("/bin/sh", "-c", show, limits=Limits(cpu_thousandths=250))
    await limited.running(path)
    pid = json.loads((path / "started.json").read_text())["pid"]
    (quota,) = Path(cgroups.ROOT).glob(f"cpu{cgroups.groups(pid)['cpu']}/cpu.cfs_quota_us")
    assert int(quota.read_text()) * 4 == int(quota.with_name("cpu.cfs_period_us").read_text())


async def test_a_rank_is_nobody_and_gains_nothing(limited: Bench) -> None:
    path = limited.start("/bin/sh", "-c", "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status")
    assert (await limited.ended(path)).succeeded
    said = (path / "stdout").read_text().split()
    assert said == [str(NOBODY)] * 3 + ["NoNewPrivs:", "1"]


async def test_a_program_that_is_missing_is_said_so_also_as_another_user(limited: Bench) -> None:
    rank = await limited.ended(limited.start("/no/such/program"))
    assert rank.fault is not None
    assert (rank.fault.category, rank.exit_code) == (Category.CONFIG, 127)
