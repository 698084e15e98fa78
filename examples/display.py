"""Shows a job that runs: a picture that moves on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scaimind.cli.text import clean, duration, number

BARS = "▁▂▃▄▅▆▇█"
SHOWN = {"loss": "loss", "tokens_per_second": "tokens/s"}
LOG_LINES = 8
PLAIN_EVERY_S = 5.0
MAX_POINTS = 20_000


class View:
    """What is known of the job so far."""

    def __init__(self) -> None:
        self.job: dict[str, Any] = {}
        self.values: dict[str, float] = {}
        self.step = 0
        self.losses: deque[float] = deque(maxlen=MAX_POINTS)
        self.lines: deque[str] = deque(maxlen=LOG_LINES)

    def facts(self) -> str:
        """Step, loss and the rest in one line."""
        parts = [f"step {self.step}"] if self.step else []
        parts += [
            f"{shown} {number(self.values[name])}"
            for name, shown in SHOWN.items()
            if name in self.values
        ]
        eta_s = self.job.get("eta_seconds")
        if eta_s:
            parts.append(f"{duration(eta_s)} to go")
        return "   ".join(parts)


class Screen(Protocol):
    """Something that shows a view each time that it changed."""

    def show(self, view: View) -> None: ...


def screen() -> AbstractContextManager[Screen]:
    """The screen that suits the output."""
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return Terminal()
    return nullcontext(Lines())


class Lines:
    """A line for each new status, and every few seconds."""

    def __init__(self) -> None:
        self._status = ""
        self._shown_at = 0.0
        self._line = ""

    def show(self, view: View) -> None:
        """Prints a line where it is time."""
        status = view.job.get("status", "")
        now = time.monotonic()
        if status == self._status and now - self._shown_at < PLAIN_EVERY_S:
            return
        line = f"{status:<13} {view.job.get('progress', 0):5.1f} %   {view.facts()}".rstrip()
        if line != self._line:
            print(line)
        if view.lines and status == self._status:
            print(f"  | {view.lines[-1]}")
        sys.stdout.flush()
        self._status, self._shown_at, self._line = status, now, line


class Terminal(AbstractContextManager["Terminal"]):
    """A progress bar, the course of the loss, and the newest lines of the log."""

    def __init__(self) -> None:
        self._live = Live(console=Console(highlight=False), refresh_per_second=8)

    def __enter__(self) -> Terminal:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, view: View) -> None:
        """Draws the view; it is on the screen with the next refresh."""
        self._live.update(_picture(view, self._live.console.width))


def _picture(view: View, width: int) -> Group:
    progress = view.job.get("progress", 0.0)
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(f"{view.job.get('status', ''):<13}", style="bold cyan"),
        ProgressBar(total=100, completed=progress, width=max(10, width - 26)),
        f"{progress:5.1f} %",
    )
    loss = Text(sparkline(list(view.losses), max(10, width - 8)), style="green")
    log = Text("\n".join(view.lines), no_wrap=True, overflow="ellipsis")
    facts = Text(view.facts())
    return Group(
        head, facts, Text.assemble("loss  ", loss), Panel(log, title="log", height=LOG_LINES + 2)
    )


def sparkline(values: list[float], width: int) -> str:
    """The course of `values` in at most `width` characters, each the mean of its share."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [index * len(values) // width for index in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(BARS[int((mean - low) / span * (len(BARS) - 1))] for mean in means)


def log_line(event: dict[str, Any]) -> str:
    """A line of the log as it is shown."""
    return clean(str(event.get("message", "")))
