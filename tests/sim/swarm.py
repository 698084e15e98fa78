"""What a seed draws: the shape of the cluster, the load, and which faults are on.

Each seed leaves some faults out. A fault that is always on hides what another one would show.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.sim.clock import MINUTE, SECOND


@dataclass(frozen=True, slots=True)
class Swarm:
    """One world's settings. Rates are per chance, times in milliseconds, 0 is off."""

    node_devices: tuple[tuple[str, int], ...]  # (type, count) per node
    job_count: int
    storm_ms: int
    loss: float
    repeat: float
    slow: float  # messages that take up to 30 s
    partition_every_ms: int
    crash_every_ms: int
    crash_before_commit: float
    crash_after_commit: float
    commit_fails: float
    commit_lands_but_fails: float
    agent_dies_every_ms: int
    node_cycles_every_ms: int
    long_outage: bool
    effects_dropped: bool
    drain_every_ms: int
    cancel: float  # share of jobs that somebody cancels
    device_trouble_every_ms: int


def draw(rng: Random) -> Swarm:
    """The swarm of a seed."""

    def maybe(value: float, chance: float = 0.6) -> float:
        return value if rng.random() < chance else 0.0

    def every(low_s: int, high_s: int) -> int:
        on = rng.random() < 0.6
        return rng.randint(low_s, high_s) * SECOND if on else 0

    types = rng.choice([("H100",), ("H100",), ("H100", "A100")])
    return Swarm(
        node_devices=tuple(
            (rng.choice(types), rng.choice((1, 2, 4, 4, 8))) for _ in range(rng.randint(1, 5))
        ),
        job_count=rng.randint(8, 26),
        storm_ms=rng.randint(3, 7) * MINUTE,
        loss=maybe(rng.choice((0.02, 0.1, 0.3))),
        repeat=maybe(rng.choice((0.05, 0.3))),
        slow=maybe(rng.choice((0.05, 0.3))),
        partition_every_ms=every(40, 200),
        crash_every_ms=every(20, 120),
        crash_before_commit=maybe(0.03, 0.4),
        crash_after_commit=maybe(0.03, 0.4),
        commit_fails=maybe(0.03, 0.4),
        commit_lands_but_fails=maybe(0.03, 0.4),
        agent_dies_every_ms=every(20, 120),
        node_cycles_every_ms=every(20, 100),
        long_outage=rng.random() < 0.1,
        effects_dropped=rng.random() < 0.25,
        drain_every_ms=every(30, 150),
        cancel=maybe(rng.choice((0.1, 0.4))),
        device_trouble_every_ms=every(60, 200),
    )
