"""Seeded worlds hold every property, in every process alike, and meet everything that was planned."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.sim.counted import CHECKS, FAULTS
from tests.sim.garbage import undisturbed
from tests.sim.shrink import command, shrink
from tests.sim.situations import expected
from tests.sim.truth import SimFailure
from tests.sim.world import ALL, Less, World

FIRST = 300  # `make check` runs the first ones
SEEDS = range(FIRST, FIRST + int(os.environ.get("SIM_SEEDS", "500")))
PROCESSES = 2
REGRESSIONS = Path(__file__).parent / "regressions.txt"


def live_through(seed: int, less: Less = ALL) -> tuple[str, Counter[str]]:
    """Lives through the world of a seed; what failed, and what it has seen."""
    world = World(seed, less)
    try:
        with undisturbed():
            world.run()
    except SimFailure as failure:
        story = "\n".join(world.story_of(failure.ids))
        return f"seed {seed}: {failure}\n{story}\nagain with: {command(seed, less)}", Counter()
    except Exception as failure:  # it says with which seed
        return f"seed {seed}: {failure!r}\nagain with: {command(seed, less)}", Counter()
    return "", world.seen()


def regressions() -> list[int]:
    """Seeds that have failed once."""
    lines = REGRESSIONS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line[:1].isdigit()]


def test_every_property_holds_in_every_world_and_all_that_was_planned_is_met() -> None:
    seeds = sorted({*SEEDS, *regressions()})
    # Not a fork: other tests may have left gRPC's threads in this process.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        lived = list(pool.map(live_through, seeds, chunksize=4))
    failed = [seed for seed, (failure, _) in zip(seeds, lived, strict=True) if failure]
    small = [live_through(seed, shrink(seed))[0] for seed in failed[:1]]  # one takes a minute
    assert not failed, "\n\n".join([f"seeds {failed} fail", *small])
    seen = Counter[str]()
    for _, met in lived:
        seen += met
    checks = {f"checked {checker}" for checker in CHECKS}
    never = sorted((expected() | checks) - set(seen))
    assert not never, f"the simulator never comes there: {never}"
    unnamed = {key for key in seen if key.startswith("checked ")} - checks - {"checked Situations"}
    unnamed |= {key for key in seen if key.startswith("fault ")} - {f"fault {x}" for x in FAULTS}
    assert not unnamed, f"tests/sim/counted.py does not say what that is: {unnamed}"


def test_a_seed_gives_the_same_story_in_every_process() -> None:
    stories = {
        subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "3", "--count", "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }
    assert len(stories) == 1
    assert "seed 5: " in stories.pop()
