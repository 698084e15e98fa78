"""Everything is bounded, and hostile input changes nothing that it should not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.commands import Recover, Tick
from coordinator.core.core import Core, CoreSettings
from coordinator.core.decision import Rejected, Reply
from coordinator.core.invariants import InvariantViolation
from coordinator.core.queue import Waiting
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    Checkpoint,
    Demand,
    Device,
    Failure,
    Job,
    JobStatus,
    LeaseState,
    Offer,
    Policy,
    Queue,
)
from tests.unit.core.conftest import Bench, caller, offer


def test_too_many_live_jobs_are_refused(small: Bench) -> None:
    for number in range(5):
        assert isinstance(small.submit(f"j{number}"), Reply)
    refused = small.submit("j5")
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.QUEUE_FULL
    small.cancel("j0")
    assert isinstance(small.submit("j5"), Reply)


def test_the_oldest_request_is_forgotten_where_too_many_are_remembered(small: Bench) -> None:
    for number in range(4):
        small.submit(f"j{number}", caller=caller(request_id=f"r{number}", digest="d"))
    assert sorted(small.core.state.requests) == ["acme/r1", "acme/r2", "acme/r3"]


def test_a_placement_pass_is_cut_short_and_goes_on(small: Bench) -> None:
    for number in range(5):
        small.submit(f"j{number}", priority=1 + number)
    small._offers["n1"] = offer("n1", 8)
    small.report("n1")
    passes = 0
    while small.core.next_deadline_ms() == 0:
        small.schedule()
        passes += 1
    assert passes == 3
    placed = sorted(small.core.state.leases.values(), key=lambda lease: lease.device_ids)
    assert [lease.job_id for lease in placed] == ["j4", "j3", "j2", "j1", "j0"]


def test_a_pass_with_nothing_new_costs_nothing(bench: Bench) -> None:
    bench.node("n1", 1)
    for number in range(3):
        bench.submit(f"j{number}")
    decision = bench.schedule()
    assert not decision.events
    assert bench.schedule() is bench.schedule()


def test_ticks_with_much_to_do_do_it_in_parts() -> None:
    bench = Bench(CoreSettings(max_deadlines_per_tick=2))
    for number in range(5):
        bench.submit(f"j{number}", start_after_ms=bench.now_ms + 10)
    bench.now_ms += 10
    counts = []
    while (due_ms := bench.core.next_deadline_ms()) is not None and due_ms <= bench.now_ms:
        counts.append(len(bench.step(Tick()).events))
        bench.schedule()
    assert counts == [2, 2, 1]


def test_two_devices_of_one_id_are_refused(bench: Bench) -> None:
    twice = (Device(device_id="x", index=0, type="H100"),) * 2
    bench._offers["n1"] = Offer(devices=twice)
    reply = bench.report("n1").reply
    assert isinstance(reply, Rejected)
    assert reply.reason is Reason.INVALID_ARGUMENT
    assert not bench.core.state.nodes


def test_a_report_full_of_nonsense_is_taken_for_what_it_is(bench: Bench) -> None:
    bench.node("n1", 2, labels=(("", ""), ("a", "b")))
    bench.submit("j1")
    known = bench.seen("j1.1.0", LeaseState.ACCEPTED)
    odd = [
        bench.seen("j1.1.0", LeaseState.ENDED),  # the second of one id is not read
        bench.seen("j1.1.0", LeaseState.RUNNING, epoch=-5),
        bench.seen("j1.1.0", LeaseState.GRANTED),
    ]
    bench.report("n1", known, *odd)
    assert bench.lease("j1.1.0").state is LeaseState.ACCEPTED
    bench.report("n1", *odd[1:])
    assert bench.job("j1").status is JobStatus.QUEUED, "what is reported as another is lost"


def test_only_the_newest_checkpoints_stay_in_the_record(small: Bench) -> None:
    small.node("n1")
    small.submit("j1")
    proven = tuple(checkpoint(number) for number in range(5))
    small.report("n1", small.seen("j1.1.0", LeaseState.RUNNING, checkpoints=proven))
    kept = [one.checkpoint_id for one in small.job("j1").checkpoints]
    assert kept == ["c2", "c3", "c4"]


def test_checkpoints_of_earlier_attempts_stay_and_those_that_are_gone_go(bench: Bench) -> None:
    bench.node("n1")
    bench.submit("j1", max_retries=5)
    failure = Failure(category="USER_CODE", message="it failed", exit_code=1)
    one = (checkpoint(1), checkpoint(2))
    bench.report("n1", bench.seen("j1.1.0", LeaseState.RUNNING, checkpoints=one))
    bench.report("n1", bench.seen("j1.1.0", LeaseState.RUNNING, checkpoints=one[1:]))
    ended = bench.seen("j1.1.0", LeaseState.ENDED, checkpoints=one[1:], failure=failure)
    bench.report("n1", ended)
    bench.now_ms += 1_000
    bench.step(Tick())
    bench.schedule()
    bench.report("n1", bench.seen("j1.2.0", LeaseState.RUNNING, checkpoints=(checkpoint(3),)))
    found = [(x.checkpoint_id, x.attempt) for x in bench.job("j1").checkpoints]
    assert found == [("c2", 1), ("c3", 2)]


def test_the_order_in_which_records_are_loaded_means_nothing(bench: Bench) -> None:
    bench.node("n1", 4)
    bench.submit("a", 2)
    bench.submit("b", depends_on=("a",))
    bench.submit("c", 3, caller=caller(request_id="r", digest="d"))
    bench.report("n1", bench.seen("a.1.0", LeaseState.RUNNING))
    records = list(bench.core.state.records())
    for order in (records, records[::-1], records[2:] + records[:2]):
        again = Core()
        again.load(order)
        again.check_invariants()
        assert again.digest() == bench.core.digest()


def test_a_device_is_not_given_twice_whatever_a_store_says(bench: Bench) -> None:
    bench.node("n1", 1)
    bench.submit("j1")
    lease = bench.lease("j1.1.0")
    other = replace(lease, lease_id="j2.1.0", job_id="j2")
    with pytest.raises(InvariantViolation, match="no device is given away twice"):
        Core().load([*bench.core.state.records(), other])


def test_the_check_finds_an_index_that_has_lost_a_lease(bench: Bench) -> None:
    bench.node("n1", 1)
    bench.submit("j1")
    state = bench.core.state
    state.leases_of_node.pop("n1")
    with pytest.raises(InvariantViolation):
        bench.core.check_invariants()
    state.leases_of_node["n1"] = {"j1.1.0": None}


def test_submits_and_cancels_in_turn_do_not_fill_the_heap() -> None:
    queue, default = Waiting(), Queue(name="default")
    for number in range(2_000):
        queue.add(waiting(0), default, account="", path=("default",))
        queue.add(waiting(number + 1), default, account="", path=("default",))
        queue.remove(f"j{number + 1}")
        queue.remove("j0")
    queue.add(waiting(0), default, account="", path=("default",))
    for number in range(2_000):
        queue.add(waiting(number + 1), default, account="", path=("default",))
        queue.remove(f"j{number + 1}")
    assert len(queue.groups["default", "", Demand(device_count=1)].heap) < 200


def test_an_epoch_that_was_led_before_is_not_led_again(bench: Bench) -> None:
    with pytest.raises(InvariantViolation):
        bench.core.step(Recover(epoch=1), bench.now_ms)


def test_an_unknown_node_joins_with_its_first_report_and_is_heard(bench: Bench) -> None:
    bench._offers["n1"] = offer("n1", 1)
    reply = bench.report("n1").reply
    assert isinstance(reply, Reply)
    assert not reply.stale
    assert not reply.superseded
    assert bench.core.state.heard["n1"].at_ms == bench.now_ms


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint(
        checkpoint_id=f"c{number}",
        step=number,
        uri=f"file:///c{number}",
        size_bytes=1,
        digest="sha256:0",
        created_at_ms=number,
        attempt=0,
    )


def waiting(number: int) -> Job:
    return Job(
        job_id=f"j{number}",
        sequence=number,
        lineage_id="",
        tenant_id="acme",
        user_id="ada",
        name="j",
        demand=Demand(device_count=1),
        policy=Policy(),
        status=JobStatus.QUEUED,
    )
