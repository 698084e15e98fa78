"""Desired against observed: each rule, and what holds whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from node_agent.core.leases import Category, Desired, Fault, Lease, Rank, State
from node_agent.core.reconcile import (
    SHORT_GRACE_MS,
    Action,
    Conclude,
    Forget,
    Start,
    Stop,
    reconcile,
)

NOW_MS = 1_000_000
RUNNING = Rank(0, State.RUNNING)
ENDED = Rank(0, State.ENDED, exit_code=0)
FAILED = Rank(1, State.ENDED, exit_code=1, ended_at_ms=5)


def want(
    *,
    lease_id: str = "l",
    epoch: int = 1,
    run: bool = True,
    grace_ms: int = 60_000,
    spec: bool = True,
) -> Desired:
    return Desired(lease_id, epoch, run=run, grace_ms=grace_ms, has_spec=spec)


def lease(*ranks: Rank, epoch: int = 1, **more: object) -> Lease:
    return replace(Lease("l", epoch, ranks=ranks), **more)  # type: ignore[arg-type]


def test_a_desired_lease_that_is_not_known_is_started() -> None:
    assert reconcile([want()], [], now_ms=NOW_MS) == [Start("l", 1)]


def test_a_desired_lease_that_runs_is_left_alone() -> None:
    assert reconcile([want()], [lease(RUNNING)], now_ms=NOW_MS) == []


def test_an_ended_lease_is_not_started_again() -> None:
    assert reconcile([want()], [lease(ENDED, drained=True)], now_ms=NOW_MS) == []


def test_a_lease_without_its_spec_that_is_not_known_is_lost() -> None:
    [action] = reconcile([want(spec=False)], [], now_ms=NOW_MS)
    assert isinstance(action, Conclude)
    assert action.fault is not None
    assert action.fault.category is Category.NODE_LOST


def test_a_stop_of_an_unknown_lease_is_answered_as_ended_without_a_fault() -> None:
    assert reconcile([want(run=False)], [], now_ms=NOW_MS) == [Conclude("l", 1, None)]


def test_a_stop_is_asked_for_with_its_grace_and_once() -> None:
    running = lease(RUNNING)
    assert reconcile([want(run=False)], [running], now_ms=NOW_MS) == [Stop("l", 1, 60_000)]
    asked = replace(running, stop_by_ms=NOW_MS + 60_000)
    assert reconcile([want(run=False)], [asked], now_ms=NOW_MS) == []
    assert reconcile([want(run=False)], [asked], now_ms=NOW_MS + 70_000) == []


def test_a_shorter_grace_is_passed_on() -> None:
    asked = lease(RUNNING, stop_by_ms=NOW_MS + 60_000)
    assert reconcile([want(run=False, grace_ms=5)], [asked], now_ms=NOW_MS) == [Stop("l", 1, 5)]


def test_a_lease_that_is_not_desired_is_stopped_then_forgotten_once_drained() -> None:
    assert reconcile([], [lease(RUNNING)], now_ms=NOW_MS) == [Stop("l", 1, SHORT_GRACE_MS)]
    assert reconcile([], [lease(ENDED)], now_ms=NOW_MS) == []
    assert reconcile([], [lease(ENDED, drained=True)], now_ms=NOW_MS) == [Forget("l", 1)]
    assert reconcile([], [lease(ENDED, drained=True, leaving=True)], now_ms=NOW_MS) == []


def test_an_ended_lease_that_is_still_desired_is_kept() -> None:
    assert reconcile([want(run=False)], [lease(ENDED, drained=True)], now_ms=NOW_MS) == []


def test_a_higher_epoch_stops_the_lower_one_and_starts_when_that_is_gone() -> None:
    new = want(epoch=2)
    assert reconcile([new], [lease(RUNNING)], now_ms=NOW_MS) == [Stop("l", 1, SHORT_GRACE_MS)]
    assert reconcile([new], [lease(ENDED, drained=True)], now_ms=NOW_MS) == [Forget("l", 1)]
    assert reconcile([new], [lease(ENDED, drained=True, leaving=True)], now_ms=NOW_MS) == []
    assert reconcile([new], [], now_ms=NOW_MS) == [Start("l", 2)]


def test_of_two_desired_epochs_the_higher_counts() -> None:
    assert reconcile([want(epoch=2), want(epoch=1)], [], now_ms=NOW_MS) == [Start("l", 2)]


def test_a_failed_rank_stops_its_gang() -> None:
    gang = lease(RUNNING, FAILED)
    assert reconcile([want()], [gang], now_ms=NOW_MS) == [Stop("l", 1, SHORT_GRACE_MS)]


def test_a_failed_rank_stops_its_gang_before_anything_was_heard() -> None:
    assert reconcile(None, [lease(RUNNING, FAILED)], now_ms=NOW_MS) == [
        Stop("l", 1, SHORT_GRACE_MS)
    ]


def test_before_anything_was_heard_all_is_left_alone() -> None:
    ended = lease(ENDED, drained=True)
    assert reconcile(None, [lease(RUNNING), replace(ended, lease_id="m")], now_ms=NOW_MS) == []


def test_a_rank_that_ended_well_leaves_its_gang_running() -> None:
    assert reconcile([want()], [lease(ENDED, Rank(1, State.RUNNING))], now_ms=NOW_MS) == []


# A small world: actions are carried out, ranks live and end, the coordinator changes its mind.


@dataclass
class World:
    """Carries actions out as the agent does, and checks what must always hold."""

    desired: list[Desired] | None = None
    leases: dict[tuple[str, int], Lease] = field(default_factory=dict)
    started: list[tuple[str, int]] = field(default_factory=list)
    now_ms: int = NOW_MS

    def step(self) -> None:
        for action in reconcile(self.desired, self.leases.values(), now_ms=self.now_ms):
            self.carry_out(action)
        again = reconcile(self.desired, self.leases.values(), now_ms=self.now_ms)
        assert again == [], "the same was asked for twice"

    def carry_out(self, action: Action) -> None:
        key = (action.lease_id, action.epoch)
        match action:
            case Start():
                assert key not in self.leases
                assert all(lease_id != key[0] for lease_id, _ in self.leases), "two epochs at once"
                self.started.append(key)
                self.leases[key] = Lease(*key, ranks=(Rank(0), Rank(1)))
            case Conclude(fault=fault):
                assert key not in self.leases
                self.leases[key] = Lease(*key, fault=fault, drained=True)
            case Stop(grace_ms=grace_ms):
                lease = self.leases[key]
                assert lease.state is not State.ENDED
                self.leases[key] = replace(lease, stop_by_ms=self.now_ms + grace_ms)
            case Forget():
                lease = self.leases[key]
                assert lease.state is State.ENDED, "a running lease was forgotten"
                assert lease.drained, "output was thrown away"
                self.leases[key] = replace(lease, leaving=True)

    def happen(self, key: tuple[str, int], what: str) -> None:
        lease = self.leases.get(key)
        if lease is None:
            return
        if lease.leaving:
            del self.leases[key]
        elif what == "drain":
            self.leases[key] = replace(lease, drained=lease.state is State.ENDED)
        else:
            self.leases[key] = replace(lease, ranks=tuple(_moved(r, what) for r in lease.ranks))


def _moved(rank: Rank, what: str) -> Rank:
    if rank.state is State.ENDED:
        return rank
    if what == "run":
        return replace(rank, state=State.RUNNING)
    if what == "end":
        return replace(rank, state=State.ENDED, exit_code=0)
    return replace(rank, state=State.ENDED, exit_code=1) if rank.rank == 1 else rank


KEYS = st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 3))
DESIRED = st.builds(
    Desired,
    lease_id=st.sampled_from(["a", "b"]),
    epoch=st.integers(1, 3),
    run=st.booleans(),
    grace_ms=st.sampled_from([0, 5_000, 60_000]),
    has_spec=st.booleans(),
)
HAPPENINGS = st.one_of(
    st.lists(DESIRED, max_size=3, unique_by=lambda d: d.lease_id),
    st.tuples(KEYS, st.sampled_from(["run", "end", "fail", "drain"])),
    st.integers(0, 30_000),
)


@given(st.lists(HAPPENINGS, max_size=40))
def test_no_lease_is_started_twice_or_forgotten_while_it_runs(
    happenings: list[list[Desired] | tuple[tuple[str, int], str] | int],
) -> None:
    world = World()
    for happening in happenings:
        if isinstance(happening, list):
            world.desired = happening
        elif isinstance(happening, tuple):
            world.happen(*happening)
        else:
            world.now_ms += happening
        world.step()
    # A grant may come anew after it was forgotten (the coordinator's doing), never beside itself.
    world.desired = []
    for _ in range(4):
        for key in list(world.leases):
            for what in ("end", "drain"):
                world.happen(key, what)
        world.step()
    assert world.leases == {}, "what nobody desires is gone in the end"


@given(st.lists(DESIRED, max_size=6))
def test_the_order_of_the_desired_list_does_not_matter(desired: list[Desired]) -> None:
    unique = {(d.lease_id, d.epoch): d for d in desired}.values()
    forward = reconcile(unique, [], now_ms=NOW_MS)
    backward = reconcile(reversed(list(unique)), [], now_ms=NOW_MS)
    assert sorted(map(repr, forward)) == sorted(map(repr, backward))


def test_a_fault_of_the_whole_lease_is_an_end() -> None:
    refused = lease(fault=Fault(Category.CONFIG, "no"), drained=True)
    assert refused.state is State.ENDED
    assert reconcile([want()], [refused], now_ms=NOW_MS) == []
    assert reconcile([], [refused], now_ms=NOW_MS) == [Forget("l", 1)]


def test_a_lease_waits_until_another_has_left_its_devices() -> None:
    new = replace(want(lease_id="new"), device_ids=("gpu-0",))
    old = lease(RUNNING, device_ids=("gpu-0", "gpu-1"))
    assert reconcile([new, want()], [old], now_ms=NOW_MS) == []
    assert reconcile([new], [], now_ms=NOW_MS, others=[old]) == []
    gone = lease(ENDED, device_ids=("gpu-0", "gpu-1"))
    assert reconcile([new], [], now_ms=NOW_MS, others=[gone]) == [Start("new", 1)]


def test_leases_hold_parts_of_a_device_beside_each_other_up_to_all_of_it() -> None:
    old = lease(RUNNING, device_ids=("gpu-0",), thousandths=500)
    half = replace(want(lease_id="half"), device_ids=("gpu-0",), thousandths=500)
    more = replace(half, lease_id="more", thousandths=501)
    known = want()
    assert reconcile([half, known], [old], now_ms=NOW_MS) == [Start("half", 1)]
    assert reconcile([more, known], [old], now_ms=NOW_MS) == []
    assert reconcile([replace(half, thousandths=1000), known], [old], now_ms=NOW_MS) == []
