"""Makes a failing world smaller: fewer faults, then fewer actors, then less time.

Every random stream has a name of its own, so what is left out does not move the rest much. A smaller
world that fails is kept, whatever it fails by: it is the easier one to understand.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from tests.sim.world import ALL, Less, World

SHORTEST_STORM_S = 20
MOST_TRIES = 60


def fails(seed: int, less: Less) -> bool:
    """Whether a property does not hold in the world of a seed."""
    try:
        World(seed, less).run()
    except Exception:  # whatever it is, it is what is looked for
        return True
    return False


def shrink(seed: int, less: Less = ALL) -> Less:
    """The smallest world found that still fails."""
    tries, found = 0, True
    while found:
        found = False
        for smaller in _smaller(seed, less):
            tries += 1
            if tries > MOST_TRIES:
                return less
            if fails(seed, smaller):
                less, found = smaller, True
                break
    return less


def _smaller(seed: int, less: Less) -> Iterator[Less]:
    swarm = World(seed, less).swarm
    faults = list(swarm.faults)
    if len(faults) > 3:
        half = len(faults) // 2
        yield replace(less, without=(*less.without, *faults[:half]))
        yield replace(less, without=(*less.without, *faults[half:]))
    for fault in faults:
        yield replace(less, without=(*less.without, fault))
    if less.odd_clocks:
        yield replace(less, odd_clocks=False)
    if not less.bare:
        yield replace(less, bare=True)
    if swarm.prints:
        yield replace(less, prints=False)
    for nodes in range(1, len(swarm.node_devices)):
        yield replace(less, nodes=nodes)
    for jobs in (1, swarm.job_count // 2, swarm.job_count - 1):
        if 0 < jobs < swarm.job_count:
            yield replace(less, jobs=jobs)
    shorter_s = swarm.storm_ms // 2000
    if shorter_s >= SHORTEST_STORM_S:
        yield replace(less, storm_s=shorter_s)


def command(seed: int, less: Less = ALL, *, planted: str = "") -> str:
    """The one command that shows a world again."""
    words = ["python", "-m", "tests.sim", "--seed", str(seed)]
    for option, value in (
        ("--plant", planted),
        ("--without", ";".join(less.without)),
        ("--nodes", less.nodes),
        ("--jobs", less.jobs),
        ("--storm-s", less.storm_s),
    ):
        if value:
            words += [option, str(value)]
    if not less.odd_clocks:
        words.append("--plain-clocks")
    if not less.prints:
        words.append("--silent")
    if less.bare:
        words.append("--bare")
    return shlex.join([*words, "--trace"])
