"""Worlds whose ranks print nothing: most of them, because files and streams take their time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from node_agent.ranks import LeaseFindings, RankFiles
from tests.sim.output import Output

Later = Callable[[int, Callable[[], None]], None]
SHIPPED_MS = 800  # at most, until the end of an output is acknowledged


class Silence(Output):
    """Nothing is printed, and there is no disk for it."""

    def make(self, rank: RankFiles) -> None:
        """No folder is needed."""

    def write(self, rank: RankFiles, *, last: bool = False) -> int:
        return 0

    def lose(self, key: tuple[str, int]) -> None:
        """There is nothing to lose."""

    def remove(self, key: tuple[str, int]) -> None:
        """There is nothing to remove."""

    def cut_power(self, rank: RankFiles) -> None:
        """There is nothing to cut."""

    def copy_to(self, other: Output) -> None:
        """There is nothing to copy."""


class SilentSpool:
    """A SpoolProtocol that has nothing to read; it takes a while to say so."""

    def __init__(self, later: Later, rng: Random) -> None:
        self.on_change: Callable[[str], None] = lambda lease_id: None
        self._later = later
        self._rng = rng
        self._going: dict[str, dict[int, None]] = {}  # ranks that have not ended
        self._drained: dict[str, None] = {}

    async def run(self) -> None:
        """There is nothing to do."""

    def watch(self, rank: RankFiles) -> None:
        self._going.setdefault(rank.lease_id, {})[rank.rank] = None

    def ended(self, lease_id: str, rank: int) -> None:
        going = self._going[lease_id]
        if going.pop(rank, self) is None and not going:
            self._later(self._rng.randint(1, SHIPPED_MS), lambda: self._ship(going, lease_id))

    def ask(self, lease_id: str, number: int) -> None:
        """Checkpoints are the machine's."""

    def known(self, lease_id: str, checkpoint_ids: Sequence[str]) -> None:
        """Nothing is uploaded."""

    def is_drained(self, lease_id: str) -> bool:
        return lease_id in self._drained or lease_id not in self._going

    def findings(self, lease_id: str) -> LeaseFindings:
        return LeaseFindings(settled=not self._going.get(lease_id))

    def forget(self, lease_id: str) -> None:
        self._going.pop(lease_id, None)
        self._drained.pop(lease_id, None)

    def _ship(self, going: dict[int, None], lease_id: str) -> None:
        if self._going.get(lease_id) is going:
            self._drained[lease_id] = None
            self.on_change(lease_id)
