"""Whatever comes, no training is stopped for a hang that nobody saw."""

from __future__ import annotations

from random import Random

import pytest

from coordinator.core import hang
from coordinator.core.settings import CoreSettings
from tests.transcript.player import Player

UNREACHABLE_AFTER_S = 20
NODES = ("n1", "n2")
LEASES = {"n1": "gang.1.0", "n2": "gang.1.1"}


class World:
    """A gang on two nodes that are heard or not; and what a bystander knows of it."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._player = Player()
        self._now_s = 0
        self._heard_s = dict.fromkeys(NODES, 0)
        self._back_s = dict.fromkeys(NODES, 0)
        self.is_stopped = False
        for node in NODES:
            self._player.play(f"node {node} 1xH100")
            self._player.play(f"sync {node}")
        policy = rng.choice(("STOP", "RESTART"))
        self._player.play(f"submit gang devices=2 nodes=2 retries=9 hang={policy}")
        for node in NODES:
            self._sync(node, silent=False)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if self.is_stopped:
                return
            if self._rng.random() < 0.3:
                seconds = self._rng.choice((*range(2, 9), *range(2, 9), *range(2, 9), 25))
                self._now_s += seconds
                self._player.play(f"tick {seconds}")
            else:
                self._sync(self._rng.choice(NODES), silent=self._rng.random() < 0.6)

    def _sync(self, node: str, *, silent: bool) -> None:
        if self._now_s - self._heard_s[node] >= UNREACHABLE_AFTER_S:
            self._back_s[node] = self._now_s
        self._heard_s[node] = self._now_s
        flag = ":silent=400" if silent else ""
        told = "\n".join(self._player.play(f"sync {node} {LEASES[node]}=RUNNING{flag}"))
        if "error=HANG" in told:
            self.is_stopped = True
            assert silent
            assert node == "n1"  # that of rank 0
            for one in NODES:
                assert self._now_s - self._heard_s[one] <= UNREACHABLE_AFTER_S
                assert self._now_s - self._back_s[one] >= CoreSettings().sight_ms // 1000


def stopped(count: int) -> int:
    """How many of so many worlds see their training stopped; each is looked at."""
    found = 0
    for seed in range(count):
        world = World(Random(seed))
        world.run(120)
        found += world.is_stopped
    return found


def test_no_training_is_stopped_for_a_hang_that_nobody_saw() -> None:
    assert stopped(25) > 3


def test_a_coordinator_that_does_not_look_at_the_other_nodes_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hang, "_is_in_sight", lambda turn, attempt: True)
    with pytest.raises(AssertionError):
        stopped(25)
