"""Messages at the level at which gRPC fails: lost, repeated, late, overtaken; nodes cut off."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.sim.clock import SECOND, Loop
from tests.sim.swarm import Swarm


class Network:
    """Delivers, or does not."""

    def __init__(self, loop: Loop, rng: Random, swarm: Swarm) -> None:
        self._loop = loop
        self._rng = rng
        self._swarm = swarm
        self.healed = False
        self.cut: dict[str, int] = {}  # node → 1 it is not heard, 2 it does not hear, 3 both

    def send(self, act: Callable[[], None], *, node_id: str = "", up: bool = True) -> None:
        """Delivers a message by `act`; `up` is towards the coordinator."""
        rng, swarm = self._rng, self._swarm
        if self.healed:
            self._loop.after(rng.randint(1, 20), act)
            return
        if self.cut.get(node_id, 0) & (1 if up else 2) or rng.random() < swarm.loss:
            return
        self._loop.after(self._delay(), act)
        if up and rng.random() < swarm.repeat:
            self._loop.after(self._delay() + rng.randint(0, 20 * SECOND), act)

    def mend(self, node_id: str) -> None:
        """Ends a cut."""
        self.cut.pop(node_id, None)

    def _delay(self) -> int:
        if self._rng.random() < self._swarm.slow:
            return self._rng.randint(1, 30 * SECOND)
        return self._rng.randint(1, 200)
