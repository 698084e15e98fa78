"""What a branch keeps of who is first below it is what one finds who looks at everything."""

from __future__ import annotations

from random import Random

import pytest

from coordinator.core.order import Turn
from coordinator.core.records import Demand
from coordinator.core.tree import NEVER, Branch, Leaf, Shape, Stand, Tree, Worthy

PATHS = (("a", "root"), ("b", "root"), ("c", "b", "root"), ("d", "c", "b", "root"))
DEMANDS = tuple(Demand(device_count=count) for count in (1, 2, 4, 8))
Hung = tuple[Leaf, Shape, Stand]


class Forest:
    """A tree, and what hangs on it in a list beside."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.tree = Tree()
        self.hung: list[Hung] = []
        self._serial = 0

    def change(self) -> None:
        """Hangs one up, lets one stand elsewhere, or takes one off."""
        choice = self.rng.random()
        if choice < 0.5 or not self.hung:
            path, user = self.rng.choice(PATHS), self.rng.choice(("", "", "ada", "bob"))
            leaf, shape = self.tree.grow(path, self.rng.choice(DEMANDS), user=user)
            self.hung.append((leaf, shape, self._move(leaf, shape, None)))
            return
        leaf, shape, stand = self.hung.pop(self.rng.randrange(len(self.hung)))
        if choice < 0.7:
            self.hung.append((leaf, shape, self._move(leaf, shape, stand)))
        else:
            leaf.move(shape, stand, now=None)
            self.tree.drop(leaf, shape)

    def worthy(self) -> Worthy:
        """Some of the shapes there are."""
        return self.tree.worthy([x for x in self.tree.shapes if self.rng.random() < 0.6])

    def least(self, branch: Branch, worthy: Worthy) -> Turn:
        """The first turn below a branch, by looking at everything."""
        turns = [
            stand[0]
            for leaf, x, stand in self.hung
            if x in worthy.shapes and _is_below(leaf, branch)
        ]
        return min(turns, default=NEVER)

    def branches(self) -> list[Branch]:
        found = [self.tree.root]
        for branch in found:
            found.extend(branch.children.values())
        return found

    def _move(self, leaf: Leaf, shape: Shape, before: Stand | None) -> Stand:
        self._serial += 1
        turn = -self.rng.randrange(3), self.rng.randrange(20), self._serial, f"j{self._serial}"
        leaf.move(shape, before, now=(turn, self._serial))
        return turn, self._serial


def _is_below(leaf: Leaf, branch: Branch) -> bool:
    above: Branch | None = leaf.above
    while above is not None and above is not branch:
        above = above.above
    return above is branch


@pytest.mark.parametrize("seed", range(20))
def test_the_first_below_a_branch_is_the_least_of_all(seed: int) -> None:
    forest = Forest(seed)
    for _ in range(300):
        forest.change()
        worthy = forest.worthy()
        for branch in forest.branches():
            assert branch.first(worthy) == forest.least(branch, worthy)


def test_what_nothing_hangs_on_goes() -> None:
    tree = Tree()
    leaf, shape = tree.grow(("d", "c", "root"), DEMANDS[0], user="ada")
    stand = (0, 0, 1, "j"), 1
    leaf.move(shape, None, now=stand)
    assert tree.queues() == ["d"]
    leaf.move(shape, stand, now=None)
    tree.drop(leaf, shape)
    assert not tree.root.children
    assert not tree.queues()
    assert not tree.shapes


def test_answers_are_bounded() -> None:
    forest = Forest(1)
    for _ in range(2_000):
        forest.change()
        forest.tree.root.first(forest.worthy())
    assert all(len(one.firsts) <= 16 for one in forest.branches())
