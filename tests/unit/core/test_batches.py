"""Jobs of a batch are filed by what they have in common: as if each had come by itself."""

from dataclasses import replace
from itertools import product

import pytest

from coordinator.core.commands import Caller, SubmitJob, SubmitJobs
from coordinator.core.core import Core
from coordinator.core.decision import Changed
from coordinator.core.records import (
    Demand,
    Device,
    Documents,
    Job,
    JobStatus,
    Lease,
    Node,
    Offer,
    Order,
    Policy,
    Queue,
)

NOW_MS = 1_700_000_000_000
ADA = Caller(tenant_id="acme", user_id="ada")
DEMANDS = Demand(device_count=1), Demand(device_count=2)
POLICIES = Policy(), Policy(deadline_ms=NOW_MS + 1), Policy(start_after_ms=NOW_MS + 1)
RECORDS = (
    Node(
        node_id="n1",
        generation=1,
        incarnation="a",
        offer=Offer(
            devices=tuple(Device(device_id=f"d{n}", index=n, type="H100") for n in range(2))
        ),
    ),
    Queue(name="fair", order=Order.FAIR, preempts=True),
    Queue(name="shortest", order=Order.SHORTEST),
    Queue(name="small", max_devices=1),
)


def submits() -> list[SubmitJob]:
    """Three of each kind, not beside each other; now and then one with a request id, or only checked."""
    kinds = product(range(3), DEMANDS, POLICIES, ("default", "fair", "shortest", "small"))
    return [
        SubmitJob(
            caller=ADA if number % 7 else replace(ADA, request_id=f"r{number}"),
            job_id=f"job_{number:03d}",
            name=f"sweep-{number}",
            demand=demand,
            policy=policy,
            queue_name=queue_name,
            document=b"x",
            validate_only=number % 11 == 0,
        )
        for number, (_, demand, policy, queue_name) in enumerate(kinds)
    ]


def filed(core: Core) -> dict[str, object]:
    """Where all that waits stands."""
    state = core.state
    return {
        "digest": core.digest(),
        "turns": {like: group.turns for like, group in state.queue.groups.items()},
        "first": {like: group.first() for like, group in state.queue.groups.items()},
        "stand": {
            like: group.stand and group.stand[0] for like, group in state.queue.groups.items()
        },
        "pending": {like: group.pending for like, group in state.queue.groups.items()},
        "deadlines": state.deadlines.wanted,
        "unlearnt": sorted(state.unlearnt),
        "last": state.last_sequence,
    }


@pytest.mark.parametrize("atomic", [False, True])
def test_a_batch_is_filed_as_jobs_that_come_one_by_one(atomic: bool) -> None:
    core = Core()
    core.load(RECORDS)
    decision = core.step(SubmitJobs(caller=ADA, jobs=tuple(submits()), atomic=atomic), NOW_MS)
    core.check_invariants()
    records = [event.record for event in decision.events if isinstance(event, Changed)]
    jobs = [record for record in records if isinstance(record, Job)]
    assert {job.status for job in jobs} == {JobStatus.QUEUED, JobStatus.PENDING}
    assert len(jobs) > len(DEMANDS) * len(POLICIES) * 3
    other = Core()
    other.load((*RECORDS, *(one for one in records if not isinstance(one, Documents))))
    other.check_invariants()
    assert filed(other) == filed(core)
    assert not any(isinstance(one, Lease) for one in records)
