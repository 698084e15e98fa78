"""Faults that last for as long as they do in earnest; prints what came.

    python -m tests.endurance cut --seconds 600 [--way unplug|deaf|mute]
    python -m tests.endurance stall --seconds 60
    python -m tests.endurance flood --seconds 180 [--mb-per-s 10]

`cut` takes a node off the network, `stall` freezes the coordinator: two jobs run on one of two nodes, one that
waits for its node and one that says REPLACE. Both need root (network namespaces). `flood` takes the log store
away while ranks print without end and readers do not read; it needs a few GB of disk. All programs have
their default settings. Exit code 0: all that is promised held.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.endurance.flood import flood
from tests.support.cluster import Cluster
from tests.support.networks import Network
from tests.support.parted import REAL, Beating, Parted
from tests.support.waiting import until

SLACK_S = 90.0
LOOK_S = 0.2
FLOOD_LIVE_S = 30.0  # after the store is back
WAYS: dict[str, Callable[[Network], None]] = {
    "unplug": Network.unplug,
    "deaf": lambda network: network.drop("input"),
    "mute": lambda network: network.drop("output"),
}


class Run:
    """One run: its cluster, its two jobs, and what was seen. Times in seconds since `begin`."""

    def __init__(self, parted: Parted, folder: Path) -> None:
        self.parted = parted
        self.keeps = Beating(parted, folder / "keep", scheduling={"on_unreachable": "KEEP"})
        self.moves = Beating(parted, folder / "move", scheduling={"on_unreachable": "REPLACE"})
        self.machine = parted.machine_of(self.keeps.job_id)
        assert parted.machine_of(self.moves.job_id) is self.machine, "both run on one node"
        self.kept, self.moved = self.keeps.beats(1), self.moves.beats(1)
        self.seen: dict[str, Any] = {}
        self._began_s = time.monotonic()

    def begin(self) -> None:
        """Whatever happens, happens now."""
        self._began_s = time.monotonic()

    def see(self, name: str, at_s: float | None = None) -> None:
        """Notes when something was seen: now, unless it says when."""
        at_s = time.monotonic() if at_s is None else at_s
        self.seen.setdefault(name, round(at_s - self._began_s, 1))

    def watch(self, seconds: float) -> None:
        """Looks at all of it until the time is over."""
        while not self.is_over(seconds):
            self._watch_ranks()
            if any(map(self.parted.is_unreachable, self.parted.machines)):
                self.see("unreachable_after_s")
            time.sleep(LOOK_S)

    def is_over(self, seconds: float) -> bool:
        """Whether so much time has passed since it began."""
        return time.monotonic() > self._began_s + seconds

    def _watch_ranks(self) -> None:
        if self.moved.lives or "replacement_began_s" in self.seen:
            return
        old, *new = self.moves.proofs()
        self.see("fenced_rank_lived_until_s", old.last_s)
        if new:
            self.see("replacement_began_s", new[0].first_s)

    def end(self) -> None:
        """Both jobs end well, with all their lines once; no rank of the first was started again."""
        assert self.keeps.beats(1).pid == self.kept.pid
        self._watch_ranks()
        attempts = self.moves.proofs()[-1].attempt
        self.moves.end(attempts=attempts)
        self.keeps.end()
        self.seen["attempts_of_replace"] = attempts


def cut(run: Run, *, seconds: float, way: str) -> None:
    """The node is cut off, and comes back."""
    run.seen.update(way=way, cut_s=seconds)
    run.begin()
    WAYS[way](run.machine.network)
    run.watch(seconds)
    assert run.keeps.beats(1).pid == run.kept.pid, "the job that waits runs on"
    run.machine.network.heal()
    healed_s = time.monotonic()
    printed = len(run.keeps.proofs()[-1].beats)
    until(lambda: _shown(run) >= printed, "its lines arrive", within_s=SLACK_S)
    run.seen["lines_arrived_after_healing_s"] = round(time.monotonic() - healed_s, 1)
    run.parted.wait_until_all_are_ready()
    run.seen["ready_after_healing_s"] = round(time.monotonic() - healed_s, 1)
    run.end()


def stall(run: Run, *, seconds: float) -> None:
    """The coordinator stands still, and goes on."""
    run.seen.update(stalled_s=seconds)
    run.begin()
    run.parted.coordinator.send(signal.SIGSTOP)
    until(lambda: run.is_over(seconds), "the time is over", within_s=seconds + SLACK_S)
    run.parted.coordinator.send(signal.SIGCONT)
    run.watch(seconds + REAL.unreachable_s)
    assert "unreachable_after_s" not in run.seen, "nobody was declared lost for it"
    run.end()


def _shown(run: Run) -> int:
    events = run.parted.client.logs(run.keeps.job_id, tail=1, follow=False)
    return max((int(event.log.message) for event in events), default=0)


def main() -> int:
    """One run of what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance")
    parser.add_argument("what", choices=("cut", "stall", "flood"))
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--way", choices=tuple(WAYS), default="unplug")
    parser.add_argument("--mb-per-s", type=float, default=10.0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="endurance-"))
    try:
        print(json.dumps(_lived_through(given, folder)), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _lived_through(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    if given.what == "flood":
        with Cluster(folder / "data", devices="sim:4xH100") as cluster:
            rate = given.mb_per_s * 1e6
            return flood(
                cluster, folder, away_s=given.seconds, live_s=FLOOD_LIVE_S, bytes_per_s=rate
            )
    with Parted(folder, times=REAL, devices=2) as parted:
        run = Run(parted, folder)
        if given.what == "cut":
            cut(run, seconds=given.seconds, way=given.way)
        else:
            stall(run, seconds=given.seconds)
        return run.seen


if __name__ == "__main__":
    sys.exit(main())
