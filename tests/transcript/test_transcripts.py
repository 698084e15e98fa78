"""Every scenario gives exactly the trace that stands in its file.

`UPDATE_TRANSCRIPTS=1 pytest tests/transcript` writes the traces anew; read the difference before you
commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.transcript.player import Player

FOLDER = Path(__file__).parent
SCENARIOS = sorted(FOLDER.glob("*.txt"))


def replay(text: str) -> str:
    """The scenario with the trace that the core really gives."""
    player = Player()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("    "):
            continue
        lines.append(line)
        if line.startswith("> "):
            lines += [f"    {found}" for found in player.play(line[2:])]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_scenario_gives_the_trace_that_is_written_down(path: Path) -> None:
    text = path.read_text()
    found = replay(text)
    if os.environ.get("UPDATE_TRANSCRIPTS"):
        path.write_text(found)
    assert found == text or os.environ.get("UPDATE_TRANSCRIPTS")


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 15
