"""The probe contract runs in every world that a machine without a GPU can have, and says which those were."""

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
)

WORLDS = ["stand-in", "compiled"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says clearly what the probes were tested against."""
    terminalreporter.write_line(f"NVML probe ran against: {', '.join(WORLDS)}")


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
    return CompiledWorld(folder) if kind == "compiled" else StandInWorld()
