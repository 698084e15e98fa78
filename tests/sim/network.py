"""Messages at the level at which gRPC fails: lost, repeated, late, overtaken; nodes cut off."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.sim.clock import SECOND, Loop
from tests.sim.swarm import Swarm

NOT_HEARD, DOES_NOT_HEAR = 1, 2


class Network:
    """Delivers, or does not. `seen` is told of each fault, with the kind of message."""

    def __init__(
        self, loop: Loop, rng: Random, swarm: Swarm, *, seen: Callable[[str, str], None]
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._lost, self._late = swarm.chance("message lost"), swarm.chance("message late")
        self._repeated = swarm.chance("message repeated")
        self._seen = seen
        self.healed = False
        self._cuts: dict[str, list[int]] = {}  # node → cuts that last, one or both of the above

    def send(
        self, what: str, act: Callable[[], None], *, node_id: str = "", up: bool = True
    ) -> None:
        """Delivers a message by `act`; `up` is towards the coordinator."""
        rng = self._rng
        if self.healed:
            self._loop.after(rng.randint(1, 20), act)
            return
        way = NOT_HEARD if up else DOES_NOT_HEAR
        if self._is_cut(node_id, way):
            return
        if rng.random() < self._lost:
            self._seen("message lost", what)
            return
        self._loop.after(self._delay(what, rng), act)
        if up and rng.random() < self._repeated:
            self._seen("message repeated", what)
            self._loop.after(self._delay(what, rng) + rng.randint(0, 20 * SECOND), act)

    def delay_ms(self, what: str, rng: Random, *, node_id: str, up: bool) -> int | None:
        """How long a message of a stream takes; None where it is lost, and the stream with it."""
        if self.healed:
            return rng.randint(1, 20)
        way = NOT_HEARD if up else DOES_NOT_HEAR
        if self._is_cut(node_id, way):
            return None
        if rng.random() < self._lost:
            self._seen("message lost", what)
            return None
        return self._delay(what, rng)

    def cut(self, node_id: str, ways: int, *, length_ms: int) -> None:
        """Cuts a node off, for a while."""
        cuts = self._cuts.setdefault(node_id, [])
        cuts.append(ways)
        self._loop.after(length_ms, lambda: cuts.remove(ways))

    def _is_cut(self, node_id: str, way: int) -> bool:
        cuts = self._cuts.get(node_id)
        return bool(cuts) and any(cut & way for cut in cuts or ())

    def _delay(self, what: str, rng: Random) -> int:
        if rng.random() < self._late:
            self._seen("message late", what)
            return rng.randint(1, 30 * SECOND)
        return rng.randint(1, 200)
