"""The heap of deadlines agrees with a plain dict, whatever is asked of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.deadlines import Deadlines, Due

STEPS = st.lists(st.tuples(st.sampled_from(Due), st.sampled_from("abc"), st.integers(0, 20)))


@given(STEPS, st.integers(0, 25))
def test_what_is_due_is_what_a_dict_would_say(
    steps: list[tuple[Due, str, int]], now_ms: int
) -> None:
    deadlines = Deadlines()
    plain: dict[tuple[Due, str], int] = {}
    for due, id, at_ms in steps:
        deadlines.set(due, id, at_ms=at_ms)
        plain[due, id] = at_ms
        plain = {key: value for key, value in plain.items() if value}
        assert deadlines.next_ms() == min(plain.values(), default=None)
    expected = {key for key, at_ms in plain.items() if at_ms <= now_ms}
    assert set(deadlines.due(now_ms, limit=100)) == expected
    assert set(deadlines.due(now_ms, limit=100)) == expected, "looking changes nothing"
    assert len(deadlines.due(now_ms, limit=2)) == min(2, len(expected))


def test_a_deadline_that_moves_on_every_second_does_not_pile_up() -> None:
    deadlines = Deadlines()
    for now_ms in range(1, 10_000):
        deadlines.set(Due.SILENCE, "n1", at_ms=now_ms + 20)
        assert not deadlines.due(now_ms, limit=10)
    assert len(deadlines._heap) < 5
