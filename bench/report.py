"""Figures, targets and the table that they make; the page that keeps it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HEADS = ("What", "Ours", "Floor", "Ours ÷ floor", "Target", "Verdict")
DIGITS = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value. Units are texts for people: `/s`, `ms`, `µs`, `MiB`."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{rounded(self.value)}{'' if self.unit.startswith('/') else ' '}{self.unit}"


@dataclass(frozen=True, slots=True)
class Target:
    """What to reach, and what to go for then; a bound of the ratio, or of our figure itself."""

    reach: float
    beyond: float | None = None
    at_most: bool = False
    of_ratio: bool = True
    unit: str = "×"

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        more = "" if self.beyond is None else f", then {rounded(self.beyond)}"
        return f"{sign} {rounded(self.reach)}{more} {self.unit}"

    def verdict(self, value: float) -> str:
        """`beyond`, `reached` or `short`."""
        if self.beyond is not None and self._holds(value, self.beyond):
            return "beyond"
        return "reached" if self._holds(value, self.reach) else "short"

    def _holds(self, value: float, bound: float) -> bool:
        return value <= bound if self.at_most else value >= bound


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; what has no floor or no target leaves it empty."""

    what: str
    ours: Figure
    floor: Figure | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """Ours ÷ floor."""
        return self.ours.value / self.floor.value if self.floor and self.floor.value else None

    def cells(self) -> tuple[str, ...]:
        """Texts, in the order of HEADS."""
        ratio = self.ratio
        verdict = ""
        if self.target is not None:
            checked = ratio if self.target.of_ratio else self.ours.value
            verdict = "" if checked is None else self.target.verdict(checked)
        return (
            self.what,
            str(self.ours),
            "" if self.floor is None else str(self.floor),
            "" if ratio is None else f"{rounded(ratio)} ×",
            "" if self.target is None else str(self.target),
            verdict,
        )


def rounded(value: float) -> str:
    """A number to three digits, without exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{DIGITS}g}"


def in_turn(
    measures: Sequence[Callable[[], float]], *, rounds: int, warm_up: bool = True
) -> list[float]:
    """The median of each measure, taken in turns: A B C A B C …, after a round that only warms up."""
    if warm_up:
        for measure in measures:
            measure()
    taken: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for measure, values in zip(measures, taken, strict=True):
            values.append(measure())
    return [statistics.median(values) for values in taken]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def text_table(rows: Sequence[Row]) -> str:
    """For a terminal."""
    table = [HEADS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def page_lines(rows: Sequence[Row]) -> dict[str, str]:
    """Lines for the page, by what they measure."""
    return {row.what: f"| {' | '.join(row.cells())} |" for row in rows}


def write_page(path: Path, machine: str, *, rows: Sequence[Row], whole: bool) -> None:
    """Replaces the rows between the page's markers; where not all were measured the others stay.

    Raises:
        ValueError: the page has no markers.
    """
    page = path.read_text(encoding="utf-8")
    head, begin, rest = page.partition(BEGIN)
    kept, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no markers {BEGIN} and {END}")
    before, lines = ("", {}) if whole else _read(kept)
    lines |= page_lines(rows)
    table = "\n".join((f"| {' | '.join(HEADS)} |", f"|{' --- |' * len(HEADS)}", *lines.values()))
    said = before or machine
    path.write_text(f"{head}{BEGIN}\n\n{said}\n\n{table}\n\n{END}{tail}", encoding="utf-8")


def _read(kept: str) -> tuple[str, dict[str, str]]:
    """What a page says of the machine, and its rows by what they measure."""
    machine, _, table = kept.strip().partition("\n\n")
    rows = table.splitlines()[2:]
    return machine, {row.split("|")[1].strip(): row for row in rows}
