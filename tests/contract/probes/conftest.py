"""The probe contract runs in every world that this machine can have, and says which those were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.probes.world import CompiledWorld, StandInWorld, World, compiler

WORLDS = ["stand-in", "compiled"] if compiler() else ["stand-in"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says clearly what the probes were tested against."""
    missing = "" if compiler() else " (no C compiler here: not against a compiled NVML)"
    terminalreporter.write_line(f"NVML probe ran against: {', '.join(WORLDS)}{missing}")


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    name = compiler()
    if request.param == "compiled" and name is not None:
        made: World = CompiledWorld(tmp_path, name)
    else:
        made = StandInWorld()
    yield made
    made.close()
