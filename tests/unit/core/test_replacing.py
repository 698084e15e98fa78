"""Records are replaced as the library would."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from coordinator.core.records import Demand, Queue
from coordinator.core.replacing import replace


@dataclass(frozen=True)
class _Checked:
    """Without slots, and with something to check."""

    least: int
    most: int

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError("the least is more than the most")


def test_a_copy_has_the_changes_and_all_else_as_it_was() -> None:
    before = Demand(device_count=2, device_type="H100", node_count=2)
    after = replace(before, device_count=4, exclusive=True)
    assert after == dataclasses.replace(before, device_count=4, exclusive=True)
    assert before == Demand(device_count=2, device_type="H100", node_count=2)
    assert hash(after) == hash(dataclasses.replace(after))
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.device_count = 1  # type: ignore[misc]


def test_a_field_that_is_not_there_is_refused() -> None:
    unknown = {"colour": "red"}
    with pytest.raises(TypeError, match="a Queue has no"):
        replace(Queue(name="a"), **unknown)  # type: ignore[arg-type]


def test_a_class_that_checks_itself_is_made_by_its_constructor() -> None:
    with pytest.raises(ValueError, match="least"):
        replace(_Checked(1, 2), least=3)
