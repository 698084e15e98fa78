"""One scripted story, and the coordinator killed at every point of every batch that it writes.

Before the write; after the write and before the fsync, so that the batch is lost; after the fsync and
before the reply; after the reply and before anybody is woken. The same at every append to the logs. Then
it is killed while it starts again, up to twice, and at each of the first steps after it has started. Set
SIM_ALL=1 to try every batch, append and step; else each of the points takes its turn.
"""

from __future__ import annotations

import os
from functools import cache

import pytest

from tests.sim.clock import MINUTE, SECOND, START_MS
from tests.sim.coordinator import CRASH_POINTS
from tests.sim.swarm import Hands, Swarm
from tests.sim.truth import SimFailure
from tests.sim.world import World

STORY_MS = 2 * MINUTE
IS_ALL = bool(os.environ.get("SIM_ALL"))
STEP = 1 if IS_ALL else 4
APPEND_STEP = 1 if IS_ALL else 16
RECOVERY_STEPS = 50
RECOVERY_STEP = 1 if IS_ALL else 10
LEAST_RECORDS = 100
LEAST_APPENDS = 50


def world_of_the_story(*, prints: bool = False) -> World:
    """Three nodes and some jobs, some in batches; one is cancelled, a node is drained and enabled again.

    Keys are made, nodes join, and jobs name an image that changes.
    """
    right = Hands(0, 1.0)
    world = World(
        4711,
        swarm=Swarm(
            node_devices=(("H100", 4), ("H100", 2), ("H100", 8)),
            node_clocks=(right,) * 3,
            coordinator_clock=right,
            job_count=10,
            storm_ms=MINUTE,
            faults={},
            prints=prints,
        ),
    )
    world.coordinator.faults = False
    world.network.healed = True
    world.offices.is_open = True
    return world


def tell(world: World) -> None:
    """Lives through the story; whenever the coordinator is down, it starts a second later."""

    def watch() -> None:
        world.coordinator.start()
        world.loop.after(SECOND, watch)

    def cancel() -> None:
        if world.people.accepted:
            world.people.cancel(min(world.people.accepted.values()))
        else:
            world.loop.after(SECOND, cancel)

    world.warm_up()
    watch()
    world.loop.after(20 * SECOND, cancel)
    world.loop.after(40 * SECOND, lambda: world.people.drain("n2", force=True))
    world.loop.after(60 * SECOND, lambda: world.people.enable("n2"))
    try:
        world.loop.run(START_MS + STORY_MS)
        world.calm()
        world.rest("at rest")
    finally:
        world.close()


@cache
def batches_of_the_story() -> int:
    """How many batches are written when nothing goes wrong."""
    world = world_of_the_story()
    tell(world)
    records = sum(" <- " in text or "retired" in text for _, text in world.story)
    assert records > LEAST_RECORDS
    return world.coordinator.batches


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_coordinator_killed_at_any_batch_loses_nothing_and_repeats_nothing(point: str) -> None:
    for batch in range(1 + CRASH_POINTS.index(point) % STEP, batches_of_the_story() + 1, STEP):
        world = world_of_the_story()
        world.coordinator.kill_at = {batch: point}
        try:
            tell(world)
        except SimFailure as failure:
            story = "\n".join(world.story_of(failure.ids))
            pytest.fail(f"{point}, batch {batch}: {failure}\n{story}")


@cache
def appends_of_the_story() -> int:
    """How many times something is appended to logs when nothing goes wrong."""
    world = world_of_the_story(prints=True)
    tell(world)
    assert world.coordinator.appends > LEAST_APPENDS
    return world.coordinator.appends


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_coordinator_killed_at_any_append_keeps_every_line_once(point: str) -> None:
    first = 1 + CRASH_POINTS.index(point) * 4 % APPEND_STEP
    for append in range(first, appends_of_the_story() + 1, APPEND_STEP):
        world = world_of_the_story(prints=True)
        world.coordinator.kill_at_append = {append: point}
        try:
            tell(world)
        except SimFailure as failure:
            story = "\n".join(world.story_of(failure.ids))
            pytest.fail(f"{point}, append {append}: {failure}\n{story}")


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_killed_again_at_a_first_step_after_its_start_it_still_loses_nothing(point: str) -> None:
    first = batches_of_the_story() // 3
    turn = CRASH_POINTS.index(point)
    for step in range(1 + 2 * turn % RECOVERY_STEP, RECOVERY_STEPS + 1, RECOVERY_STEP):
        world = world_of_the_story()
        again = CRASH_POINTS[(turn + step) % len(CRASH_POINTS)]
        world.coordinator.kill_at = {first: point, first + step: again}
        try:
            tell(world)
        except SimFailure as failure:
            story = "\n".join(world.story_of(failure.ids))
            pytest.fail(f"{point}, then {again} {step} batches later: {failure}\n{story}")


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_killed_again_while_it_recovers_it_still_loses_nothing(point: str) -> None:
    for batch in range(1 + CRASH_POINTS.index(point), batches_of_the_story() + 1, 4 * STEP):
        world = world_of_the_story()
        # the next two are the first that the new leaders write
        world.coordinator.kill_at = {batch: point, batch + 1: point, batch + 2: point}
        killed = world.coordinator.kill_at.copy()
        try:
            tell_and_kill_starts(world, times=1 + batch % 2)
        except SimFailure as failure:
            story = "\n".join(world.story_of(failure.ids))
            pytest.fail(f"{killed} and its recovery: {failure}\n{story}")


def tell_and_kill_starts(world: World, *, times: int) -> None:
    """The story, with so many starts that die before they lead."""

    def arm() -> None:
        world.coordinator.kill_in_recovery = times

    world.loop.after(SECOND, arm)
    tell(world)
