"""The probe contract runs in every world that this machine can have, and says which those were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.probes.world import (
    AnyWorld,
    CompiledWorld,
    SimulatedWorld,
    StandInWorld,
    World,
    compiler,
)

WORLDS = ["stand-in", "compiled"] if compiler() else ["stand-in"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says clearly what the probes were tested against."""
    missing = "" if compiler() else " (no C compiler here: not against a compiled NVML)"
    terminalreporter.write_line(f"NVML probe ran against: {', '.join(WORLDS)}{missing}")


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = _made(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture(params=[*WORLDS, "simulated"])
def any_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyWorld]:
    made = SimulatedWorld() if request.param == "simulated" else _made(request.param, tmp_path)
    yield made
    made.close()


def _made(kind: str, folder: Path) -> World:
    name = compiler()
    return CompiledWorld(folder, name) if kind == "compiled" and name else StandInWorld()
