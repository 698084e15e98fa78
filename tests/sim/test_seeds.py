"""Seeded worlds hold every property, in every process alike."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest

from tests.sim.situations import expected
from tests.sim.truth import SimFailure
from tests.sim.world import World

SEEDS = range(1, 61)


@cache
def situations_of(seed: int) -> frozenset[str]:
    """Lives through the world of a seed; what it has seen."""
    world = World(seed)
    try:
        world.run()
    except SimFailure as failure:
        story = "\n".join(world.story_of(failure.ids))
        pytest.fail(f"{failure}\n{story}\nagain with: python -m tests.sim --seed {seed} --trace")
    return frozenset(world.situations.seen)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_property_holds_in_the_world_of_a_seed(seed: int) -> None:
    assert situations_of(seed)


def test_the_seeds_together_see_every_situation() -> None:
    seen = frozenset[str]().union(*(situations_of(seed) for seed in SEEDS))
    assert not expected() - seen, "the simulator never comes there"


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
