"""Metrics in plain output: lines such as `{'loss': 0.5, 'epoch': 1.0}`, as the HF Trainer prints."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_CHARS = 4096
_ENTRY = re.compile(
    r"'(?P<name>[^'\\{}]{1,128})': (?:[\w.]{1,32}\()?'?"
    r"(?P<value>-?(?:\d[\d.]{0,40}(?:e[+-]?\d{1,4})?|nan|inf))'?\)?(?=, |\}$)"
)
_STEP_NAMES = ("step", "global_step")


class MetricsLine(NamedTuple):
    """What one line reports; `step` is None where it does not say."""

    step: int | None
    epoch: float | None
    values: dict[str, float]


def parse(line: str) -> MetricsLine | None:
    """The metrics in a line, or None for a line that is none.

    It is one if it is a dict of names and numbers, one of them a loss or the epoch. Numbers may
    stand in quotes or in a call (`np.float64(0.5)`), as versions of the libraries print them.
    """
    if not line.startswith("{'") or not line.endswith("}") or len(line) > MAX_CHARS:
        return None
    if "{" in line[1:]:
        return None
    values: dict[str, float] = {}
    for entry in _ENTRY.finditer(line):
        try:
            values[entry["name"]] = float(entry["value"])
        except ValueError:
            continue
    if not any(name == "epoch" or "loss" in name for name in values):
        return None
    step = _step(values)
    epoch = values.pop("epoch", None)
    return MetricsLine(step, epoch, values) if values else None


def _step(values: dict[str, float]) -> int | None:
    for name in _STEP_NAMES:
        step = values.get(name)
        if step is not None and step.is_integer() and 0 <= step < 2**53:
            del values[name]
            return int(step)
    return None
