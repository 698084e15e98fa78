"""What it costs to tell why a job waits: `python -m bench explain`.

The forecaster's own process, fed as the coordinator feeds it, is asked about waiting jobs of a large
cluster, while a loop beside it decides and feeds on, as the coordinator's does. What explaining does to
that loop is the longest time for which it did not come to its next decision.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.report import Figure, Row, Target, quantile, text_table
from bench.scale import QUIET, Crowd
from coordinator.core.decision import Changed
from coordinator.core.reasons import Reason
from coordinator.runtime.clock import Clock
from coordinator.runtime.forecaster import Forecaster, Unforeseen
from coordinator.runtime.view import View

NODES, QUEUED = 1_000, 10_000
ASKED = 40  # jobs
BEAT_S = 0.005  # between two decisions of the loop
QUIET_S = 2.0
LOOK_S = 120.0  # until the first look ahead is done
SOON_MS = 1_000


class StoodStill(Clock):
    """The time of the recorded cluster."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    def now_ms(self) -> int:
        return self._crowd.now_ms


@dataclass(slots=True)
class Beats:
    """A loop that decides again and again, and how late it came at worst."""

    crowd: Crowd
    view: View
    late_s: list[float] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            due_s = time.perf_counter() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self.late_s.append(time.perf_counter() - due_s)
            decision = self.crowd.report()
            self.view.apply(decision.events)

    def worst_ms(self) -> float:
        """Since this was asked last."""
        worst = max(self.late_s, default=0.0)
        self.late_s.clear()
        return worst * 1000


def rows() -> list[Row]:
    """How long an answer takes, and how late the loop beside it comes."""
    gc.disable()
    return asyncio.run(_measure(Crowd(NODES, QUEUED)))


async def _measure(crowd: Crowd) -> list[Row]:
    view = View()
    at_ms = crowd.now_ms
    for record in crowd.core.state.records():
        view.apply((Changed(record=record, cause=Reason.ACCEPTED, actor="core", at_ms=at_ms),))
    forecaster = Forecaster(view, StoodStill(crowd), settings=QUIET)
    waiting = [*crowd.core.state.queue.group_of]
    asked = [waiting[number * len(waiting) // ASKED] for number in range(ASKED)]
    beats = Beats(crowd, view)
    beating = asyncio.create_task(beats.run())
    await asyncio.sleep(QUIET_S)
    still_ms = beats.worst_ms()
    try:
        first_ms = await _took_ms(forecaster, asked[0])
        loading_ms = beats.worst_ms()
        async with asyncio.timeout(LOOK_S):
            while await _took_ms(forecaster, asked[-1]) > SOON_MS:
                pass  # the first look ahead is made still
        beats.worst_ms()
        spent_s = _spent_s(forecaster.pid)
        took_ms, untried = [], 0
        for job_id in asked:
            took_ms.append(await _took_ms(forecaster, job_id))
            untried += (await forecaster.explain(job_id)).untried
        late_ms = beats.worst_ms()
        spent_ms = (_spent_s(forecaster.pid) - spent_s) * 1000 / len(asked)
    finally:
        beating.cancel()
        await forecaster.close()
    what = f"Explain, {NODES:,} nodes, {QUEUED:,} queued"
    most = Target(reach=100, beyond=50, at_most=True, of_ratio=False, unit="ms")
    return [
        Row(f"{what}: p50", Figure(quantile(took_ms, 0.5), "ms"), target=most),
        Row(f"{what}: p95", Figure(quantile(took_ms, 0.95), "ms"), target=most),
        Row(f"{what}: the first, which loads everything", Figure(first_ms, "ms")),
        Row(f"{what}: processor time of the forecaster for each", Figure(spent_ms, "ms")),
        Row(f"{what}: changes not tried yet in an answer", Figure(untried / len(asked), "")),
        Row(
            f"{what}: longest stall of the loop meanwhile; without",
            Figure(late_ms, "ms"),
            Figure(still_ms, "ms"),
        ),
        Row(
            f"{what}: longest stall of the loop while it loads; without",
            Figure(loading_ms, "ms"),
            Figure(still_ms, "ms"),
        ),
    ]


async def _took_ms(forecaster: Forecaster, job_id: str) -> float:
    began = time.perf_counter()
    with suppress(Unforeseen):  # on a busy machine, until everything is loaded
        await forecaster.explain(job_id)
    return (time.perf_counter() - began) * 1000


def _spent_s(pid: int | None) -> float:
    """Processor time of a process and of all that it has forked."""
    spent, pids = 0.0, [pid]
    for one in pids:
        with suppress(OSError):
            stat = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            spent += sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")
            pids += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return spent


if __name__ == "__main__":
    print(text_table(rows()))
