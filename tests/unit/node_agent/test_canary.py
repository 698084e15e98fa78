"""The canary: a real computation that passes on a machine that is well, and every way not to pass."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from node_agent import canary as canary_room
from node_agent import canary_program
from node_agent.canary import Canary
from node_agent.ranks import DetectedDevice
from node_agent.runtime.rules import ProcessRules
from scaimind.agent.v1 import agent_service_pb2 as pb

DEVICES = [DetectedDevice(f"cpu-{n}", n, "CPU", "a core", 1 << 30) for n in range(2)]


async def ended(
    python: str | Path, device_ids: Sequence[str] = ("cpu-0", "cpu-1"), *, limit_s: float = 120.0
) -> dict[str, str]:
    """Why devices failed a canary that is run once."""
    rules = ProcessRules(user=None, group="", pids=1000, python=str(python))
    canary = Canary(lambda: DEVICES, rules, limit_s=limit_s)
    over = asyncio.Event()
    canary.on_change = over.set
    desired = pb.DesiredCanary(number=7, device_ids=device_ids)
    canary.desire(desired)
    canary.desire(desired)  # the same is not begun again
    assert canary.report() is None
    async with asyncio.timeout(240):
        await over.wait()
    found = canary.report()
    assert found is not None
    assert found.number == 7
    await canary.close()
    assert canary.report() is None
    return {one.device_id: one.message for one in found.failures}


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def test_devices_that_are_well_pass() -> None:
    assert await ended(sys.executable) == {}


async def test_a_device_that_is_not_there_fails() -> None:
    assert await ended(sys.executable, ["cpu-9"]) == {"cpu-9": "there is no such device"}


async def test_a_python_that_cannot_be_started_fails_all() -> None:
    found = await ended("/nowhere/python")
    assert "cannot be started" in found[""]


async def test_one_that_says_nothing_in_time_is_ended_and_has_failed(tmp_path: Path) -> None:
    found = await ended(script(tmp_path, "exec sleep 600"), limit_s=0.2)
    assert "said nothing within" in found[""]


@pytest.mark.parametrize("said", ["", "nonsense", "[]", '{"failures": 3}'])
async def test_what_cannot_be_read_is_a_failure(tmp_path: Path, said: str) -> None:
    assert await ended(script(tmp_path, f"echo '{said}'")) == {
        "": "the canary ended without a word"
    }


async def test_what_fails_is_told_by_device_and_of_others_nothing_is_believed(
    tmp_path: Path,
) -> None:
    told = '{"failures": {"cpu-1": "a matrix product is wrong", "cpu-77": "x"}}'
    found = await ended(script(tmp_path, f"echo '{told}'"))
    assert found == {"cpu-1": "a matrix product is wrong"}


async def test_nothing_of_the_agents_environment_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIND_JOIN_TOKEN", "secret")
    env = tmp_path / "env"
    await ended(script(tmp_path, f"env > {env}"))
    assert "secret" not in env.read_text()
    assert "PATH=" in env.read_text()


def test_a_wrong_sum_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert canary_program._reduce(3) == ""
    monkeypatch.setattr("json.loads", lambda line: [1] * (1 << 12))
    assert "another sum" in canary_program._reduce(3)


def test_a_wrong_product_is_found_without_any_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert canary_program._product(1) == ""
    real = canary_program._dot
    calls = iter(range(10**9))
    monkeypatch.setattr(canary_program, "_dot", lambda a, b: real(a, b) + (next(calls) == 5))
    assert canary_program._product(1) == "a matrix product is wrong"


def test_the_program_is_beside_the_one_that_runs_it() -> None:
    assert os.path.samefile(canary_room.PROGRAM, canary_program.__file__)
