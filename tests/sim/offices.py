"""What people ask for beside single jobs: batches, keys, credentials, queues that come and go.

A third of the worlds have any of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from coordinator.core.records import ROOT, Queue
from tests.sim.answers import Answers
from tests.sim.batches import Batches, in_batches
from tests.sim.clock import SECOND
from tests.sim.keys import KeyRing
from tests.sim.plans import Plan

if TYPE_CHECKING:
    from tests.sim.world import World

WORLDS = 3  # one in so many


class Offices:
    """Schedules all of it."""

    def __init__(self, world: World, rng: Random, *, is_closed: bool) -> None:
        self._world = world
        self._rng = rng
        self.is_open = not rng.randrange(WORLDS) and not is_closed
        seed = rng.random()
        self._batches = Batches(world.people, Random(f"{seed}/batches"), world.truth)
        self._keys = KeyRing(
            world.people,
            Random(f"{seed}/keys"),
            coordinator=world.coordinator,
            truth=world.truth,
        )
        self._answers = Answers(
            world.people,
            Random(f"{seed}/answers"),
            world.truth,
            is_over=lambda: world.storm.is_over,
        )

    def submit(self, plans: list[Plan]) -> None:
        """Everybody submits in their time, some of them several jobs at once."""
        groups = in_batches(plans, self._rng) if self.is_open else [[plan] for plan in plans]
        for group in groups:
            one = partial(self._world.people.submit, group[0])
            act = one if len(group) == 1 else partial(self._batches.submit, group)
            self._world.loop.after(group[0].delay_ms, act)

    def begin(self) -> None:
        """Everything else comes at any time of the storm."""
        if not self.is_open:
            return
        self._world.people.on_answer = self._answers.told
        for _ in range(self._rng.choice((1, 3, 6))):
            self._sometime(self._keys.make)
        for node in self._world.nodes:
            for _ in range(self._rng.choice((1, 2, 3))):
                secret = self._rng.choice(("own", "own", "stolen"))
                self._sometime(partial(self._keys.join, node.node_id, secret))
        for _ in range(self._rng.choice((0, 1, 2, 4))):
            self._sometime(self._change_queue)

    def _sometime(self, act: Callable[[], None]) -> None:
        def still() -> None:
            if not self._world.storm.is_over:
                act()

        self._world.loop.after(self._rng.randint(0, self._world.swarm.storm_ms), still)

    def _change_queue(self) -> None:
        """A queue is put below another one, closed for new jobs for a while, or removed."""
        people = self._world.people
        what = self._rng.choice(("below", "closed", "removed", "removed"))
        name = self._rng.choice(("default", "other"))
        if what == "removed":
            people.remove_queue(name)
        elif what == "below":
            people.put_queue(Queue(name="other", parent=ROOT))
            people.put_queue(Queue(name="default", parent="other"))
        else:
            people.put_queue(Queue(name=name, accepts=False))
            self._world.loop.after(
                self._rng.choice((10, 60)) * SECOND, partial(people.put_queue, Queue(name=name))
            )
