"""What follows from the states of ranks."""

from __future__ import annotations

import pytest

from node_agent.core.leases import Category, Fault, Lease, Rank, State, first_fault
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2

A, R, E = State.ACCEPTED, State.RUNNING, State.ENDED


@pytest.mark.parametrize(
    ("ranks", "stopping", "state"),
    [
        ([A], False, A),
        ([A, R], False, A),
        ([R, R], False, R),
        ([R, E], False, R),
        ([E, E], False, E),
        ([E, A], False, A),
        ([R, R], True, State.STOPPING),
        ([A, R], True, State.STOPPING),
        ([E, E], True, E),
        ([], False, E),
    ],
)
def test_a_lease_is_where_its_ranks_are(ranks: list[State], stopping: bool, state: State) -> None:
    lease = Lease(
        "l",
        1,
        ranks=tuple(Rank(n, s) for n, s in enumerate(ranks)),
        stop_by_ms=1 if stopping else None,
    )
    assert lease.state is state


def test_the_rank_that_failed_first_is_named() -> None:
    ranks = [
        Rank(0, E, signal=15, ended_at_ms=30, stopped=True),
        Rank(1, E, exit_code=1, ended_at_ms=20),
        Rank(2, E, exit_code=9, ended_at_ms=10, last_lines=("so", "boom")),
    ]
    fault = first_fault(ranks)
    assert fault == Fault(
        Category.USER_CODE,
        "rank 2 exited with code 9: boom",
        rank=2,
        exit_code=9,
        lines=("so", "boom"),
    )


def test_a_fault_of_the_network_is_what_a_peers_end_looks_like() -> None:
    lost = Rank(0, E, exit_code=1, ended_at_ms=10, last_lines=("ncclRemoteError: gone",))
    memory = Rank(1, E, exit_code=1, ended_at_ms=20, last_lines=("CUDA out of memory",))
    fault = first_fault([lost, memory])
    assert fault is not None
    assert (fault.category, fault.rank) == (Category.GPU_OOM, 1)
    fault = first_fault([lost, Rank(1, E, exit_code=0, ended_at_ms=20)])
    assert fault is not None
    assert (fault.category, fault.rank) == (Category.NETWORK, 0)


def test_a_rank_that_was_asked_to_stop_has_not_failed() -> None:
    assert first_fault([Rank(0, E, exit_code=1, stopped=True)]) is None
    assert first_fault([Rank(0, E, signal=9, stopped=True)]) is None


def test_a_rank_that_was_lost_has_failed_whether_stopped_or_not() -> None:
    lost = Fault(Category.NODE_LOST, "the rank's supervisor was lost")
    fault = first_fault([Rank(3, E, signal=9, stopped=True, fault=lost)])
    assert fault is not None
    assert (fault.category, fault.rank, fault.signal) == (Category.NODE_LOST, 3, 9)


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        (Rank(0, E, signal=9), "SIGKILL, as the kernel does when memory runs out"),
        (Rank(0, E, exit_code=137), "signal 9"),
        (Rank(0, E, exit_code=127), "not found"),
        (Rank(0, E, exit_code=126), "cannot be executed"),
        (Rank(0, E, signal=11), "SIGSEGV"),
        (Rank(0, E, signal=40), "signal 40"),
        (Rank(0, E, exit_code=2), "code 2"),
    ],
)
def test_the_message_explains_what_the_number_means(rank: Rank, said: str) -> None:
    fault = first_fault([rank])
    assert fault is not None
    assert said in fault.message


def test_success_is_exit_code_0_of_every_rank() -> None:
    good, bad = Rank(0, E, exit_code=0), Rank(1, E, exit_code=1)
    assert Lease("l", 1, ranks=(good,)).succeeded
    assert not Lease("l", 1, ranks=(good, bad)).succeeded
    assert not Lease("l", 1, ranks=(good, Rank(1, R))).succeeded
    assert not Lease("l", 1).succeeded


def test_states_and_categories_are_those_of_the_protocol() -> None:
    for state in State:
        assert agent_pb2.ObservedState.Value(state.name) == state.value
    for category in Category:
        assert job_pb2.JobError.Category.Value(category.value)
