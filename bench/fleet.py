"""A thousand agents that run nothing, on one coordinator: what they cost it, and whether any goes unheard."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.programs import Coordinator
from bench.recovery_bench import AGENTS, BEAT, CORE, Agents, at_rest
from bench.report import Figure, Row, text_table


def rows() -> list[Row]:
    """Each has a connection of its own and reports eight devices every five seconds."""
    with (
        tempfile.TemporaryDirectory() as name,
        Coordinator(Path(name) / "coordinator") as coordinator,
    ):
        token = (coordinator.folder / "join.token").read_text().strip()
        with Agents(coordinator.address, token, log=Path(name) / "agents.log") as agents:
            agents.ask("mark")
            agents.ask("back")
            share, gap_s = at_rest(coordinator, agents)
    what = f"{AGENTS:,} agents of an empty cluster, with their telemetry"
    return [
        Row(f"{what}: of one core", Figure(share, "%"), target=CORE),
        Row(f"{what}: longest silence", Figure(gap_s, "s"), target=BEAT),
    ]


if __name__ == "__main__":
    print(text_table(rows()))
