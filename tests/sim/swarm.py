"""What a seed draws: the shape of the cluster, the load, and which faults are on.

Each seed leaves most faults out. A fault that is always on hides what another one would show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from tests.sim.clock import DAY, MINUTE, SECOND

RATES: Mapping[str, tuple[float, ...]] = {
    "message lost": (0.02, 0.1, 0.3),
    "message repeated": (0.05, 0.3),
    "message late": (0.05, 0.3),
    "crash before the write": (0.03,),
    "crash before the fsync": (0.03,),
    "crash before the reply": (0.03,),
    "crash before the effects": (0.03,),
    "crash in recovery": (0.3, 0.7),
    "commit fails": (0.03,),
    "commit lands but fails": (0.03,),
    "effects dropped": (0.5, 1.0),
}
"""Faults that come with a chance each time, with the chances to choose from."""

PERIODS_S: Mapping[str, tuple[int, int]] = {
    "coordinator crashes": (20, 120),
    "coordinator stalls": (60, 200),
    "coordinator away": (200, 600),
    "coordinator clock jumps": (30, 200),
    "batches lost": (60, 200),
    "node not heard": (40, 200),
    "node does not hear": (40, 200),
    "node cut off": (40, 200),
    "agent dies": (20, 120),
    "agent frozen": (30, 120),
    "agent reinstalled": (60, 200),
    "all agents reconnect": (60, 200),
    "node clock jumps": (30, 200),
    "power cut": (20, 100),
    "power cut, disk lost": (40, 200),
    "node cloned": (100, 300),
    "node gone": (60, 200),
    "device trouble": (60, 200),
    "drain": (30, 150),
    "drain by force": (40, 150),
    "drain with a deadline": (40, 150),
    "enable": (30, 100),
    "cancel": (5, 40),
    "pause": (4, 30),
    "resume": (5, 30),
    "retry": (8, 40),
    "preempt": (8, 40),
    "change": (4, 30),
    "stranger": (5, 40),
}
"""Faults and wishes that come again and again, with the shortest and longest mean time between."""

PLENTY = 1 << 30  # bytes
PARTITIONED = 0.1  # of the worlds
PRINTING = 0.25  # of the worlds: output takes as long as everything else

FAULTS = (*RATES, *PERIODS_S)


@dataclass(frozen=True, slots=True)
class Hands:
    """How a machine's clock goes: its offset, and its rate."""

    offset_ms: int
    rate: float


@dataclass(frozen=True, slots=True)
class Swarm:
    """One world's settings. `faults` maps those that are on to a chance, or a mean time in ms."""

    node_devices: tuple[tuple[str, int], ...]  # (type, count) per node
    node_clocks: tuple[Hands, ...]
    coordinator_clock: Hands
    job_count: int
    storm_ms: int
    faults: Mapping[str, float]
    prints: bool = False  # whether ranks do
    spool_bytes: int = PLENTY  # that one output may have waiting on a node
    log_bytes_max: int = PLENTY  # of one job, at the coordinator

    def chance(self, fault: str) -> float:
        """How probable a fault is each time; 0 is off."""
        return self.faults.get(fault, 0.0)


def draw(rng: Random) -> Swarm:
    """The swarm of a seed."""
    types = rng.choice([("H100",), ("H100",), ("H100", "A100")])
    node_count = rng.randint(1, 5)
    share = rng.choice((0.15, 0.33, 0.5))  # of the faults that are on
    odd_clocks = rng.random() < 0.4
    faults: dict[str, float] = {}
    for fault in FAULTS:
        is_on = rng.random() < share
        if fault in RATES:
            drawn: float = rng.choice(RATES[fault])
        else:
            low_s, high_s = PERIODS_S[fault]
            drawn = rng.randint(low_s, high_s) * SECOND
        if is_on:
            faults[fault] = drawn
    return Swarm(
        node_devices=tuple(
            (rng.choice(types), rng.choice((1, 2, 4, 4, 8))) for _ in range(node_count)
        ),
        node_clocks=tuple(_hands(rng, odd=odd_clocks) for _ in range(node_count)),
        coordinator_clock=_hands(rng, odd=odd_clocks),
        job_count=rng.randint(8, 26),
        storm_ms=rng.randint(3, 7) * MINUTE,
        faults=faults,
        prints=rng.random() < PRINTING,
        spool_bytes=rng.choice((3_000, PLENTY, PLENTY)),
        log_bytes_max=rng.choice((20_000, PLENTY, PLENTY)),
    )


def partition(swarm: Swarm, rng: Random) -> Swarm:
    """The same, and in one world of ten some nodes offer instances of partitioned GPUs instead."""
    if rng.random() >= PARTITIONED:
        return swarm
    return replace(
        swarm,
        node_devices=tuple(
            (f"{kind}-1g.10gb" if rng.random() < 0.5 else kind, count)
            for kind, count in swarm.node_devices
        ),
    )


def _hands(rng: Random, *, odd: bool) -> Hands:
    offset_ms = rng.choice((-DAY, -SECOND, 0, SECOND, DAY))
    rate = rng.uniform(0.9, 1.1)
    return Hands(offset_ms, rate) if odd else Hands(0, 1.0)
