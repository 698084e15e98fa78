"""docs/reliability.md counts every fault that comes in the simulated world, and every property."""

from __future__ import annotations

from pathlib import Path

from tests.sim.counted import CHECKS, FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
ROWS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]


def test_every_fault_has_its_row() -> None:
    wanted = [f"| {number or '—'} | {fault} | " for fault, number in FAULTS.items()]
    assert not [head for head in wanted if not any(row.startswith(head) for row in ROWS)]


def test_every_property_has_its_row() -> None:
    wanted = [f"| {number or '—'} | {what} | `{x}` | " for x, (number, what) in CHECKS.items()]
    assert not [head for head in wanted if not any(row.startswith(head) for row in ROWS)]
