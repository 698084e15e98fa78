"""What a seed found: an agent starts nothing on devices that another lease may still be using."""

from __future__ import annotations

from node_agent.core.leases import Desired, Lease, Rank, State
from node_agent.core.reconcile import Start, Stop, reconcile

NOW_MS = 1_000_000


def given_away(*, state: State) -> list[object]:
    """What is done where device d0 is given to j2 while j1, which nobody knows, is in a state."""
    old = Lease("j1.1.0", 1, ranks=(Rank(0, state, exit_code=0),), device_ids=("d0",))
    new = Desired("j2.1.0", 2, True, 0, True, ("d0",))
    return [type(action) for action in reconcile([new], [old], now_ms=NOW_MS)]


def test_a_device_in_use_is_emptied_before_another_lease_starts_on_it() -> None:
    assert given_away(state=State.RUNNING) == [Stop]


def test_once_what_used_the_device_has_ended_the_other_lease_starts() -> None:
    assert given_away(state=State.ENDED) == [Start]


def test_a_lease_on_other_devices_starts_at_once() -> None:
    old = Lease("j1.1.0", 1, ranks=(Rank(0, State.RUNNING),), device_ids=("d0",))
    new = Desired("j2.1.0", 2, True, 0, True, ("d1",))
    assert Start("j2.1.0", 2) in reconcile([new], [old], now_ms=NOW_MS)
