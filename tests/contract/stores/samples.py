"""Records for the tests of stores.

`python -m tests.contract.stores.samples` writes the golden files that are missing, and the defaults anew.
"""

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from coordinator.core.decision import Changed, Retired
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    Attempt,
    Checkpoint,
    Considered,
    Demand,
    Device,
    Documents,
    Drain,
    Entry,
    Failure,
    History,
    Job,
    JobStatus,
    Key,
    Kind,
    Lease,
    LeaseAction,
    LeaseState,
    Mix,
    Node,
    Offer,
    OnHang,
    OnUnreachable,
    Order,
    Policy,
    Queue,
    Record,
    Request,
    RollingDrain,
    Ruling,
    Share,
    StopCause,
    Usage,
)
from coordinator.core.times import Day, Spent
from coordinator.store.codec import CODECS, TYPES, encode
from coordinator.store.protocol import Batch

GOLDEN = Path(__file__).parent / "golden"
DEFAULTS = GOLDEN / "defaults.json"


def job(number: int = 1, **fields: Any) -> Job:
    """A job; `number` makes its id, its age and its times."""
    values: dict[str, Any] = {
        "job_id": f"job_{number:04d}",
        "sequence": number,
        "lineage_id": f"job_{number:04d}",
        "tenant_id": "acme",
        "user_id": "ada",
        "name": f"train-{number}",
        "demand": Demand(device_count=1),
        "policy": Policy(),
        "created_at_ms": 1000 + number,
        "updated_at_ms": 1000 + number,
    }
    return Job(**(values | fields))


def lease(job_id: str = "job_0001", attempt: int = 1, **fields: Any) -> Lease:
    values: dict[str, Any] = {
        "lease_id": f"{job_id}.{attempt}.0",
        "epoch": 1,
        "job_id": job_id,
        "attempt": attempt,
        "node_id": "n1",
        "device_ids": ("d0",),
    }
    return Lease(**(values | fields))


def node(node_id: str = "n1", **fields: Any) -> Node:
    values: dict[str, Any] = {
        "node_id": node_id,
        "generation": 1,
        "incarnation": "a",
        "offer": Offer(devices=(Device(device_id="d0", index=0, type="H100"),)),
    }
    return Node(**(values | fields))


def key(key_id: str = "k1") -> Key:
    return Key(
        key_id=key_id,
        sha256="00ff",
        tenant_id="acme",
        user_id="ada",
        permissions=("MANAGE", "VIEW"),
        created_at_ms=1,
    )


def request(request_id: str = "r1", **fields: Any) -> Request:
    values: dict[str, Any] = {
        "tenant_id": "acme",
        "request_id": request_id,
        "digest": "d",
        "expires_at_ms": 99,
    }
    return Request(**(values | fields))


def changed(record: Record, *, cause: Reason = Reason.ACCEPTED, at_ms: int = 5) -> Changed:
    return Changed(record=record, cause=cause, actor="ada", at_ms=at_ms)


def retired(record: Record) -> Retired:
    return Retired(kind=record.kind, id=record.id, at_ms=6)


def batch(id: str, *events: Changed | Retired | Record) -> Batch:
    """A batch; a bare record is a change of it."""
    return Batch(
        id=id,
        events=tuple(
            event if isinstance(event, Changed | Retired) else changed(event) for event in events
        ),
    )


_FULL_JOB = job(
    7,
    labels=(("team", "nlp"), ("type", "evaluation")),
    parent_job_id="job_0001",
    queue_name="nightly",
    priority=9,
    demand=Demand(
        device_count=8,
        device_type="H100",
        device_memory_bytes=80 << 30,
        node_count=2,
        world_size=8,
        cpu_count=64,
        memory_bytes=1 << 40,
        disk_bytes=1 << 41,
        node_selector=(("zone", "a"),),
    ),
    policy=Policy(
        max_retries=3,
        retry_on_exit_codes=(1, 137),
        retry_on=("NETWORK",),
        fail_on=("GPU_OOM",),
        preemptible=False,
        requeue_on_preemption=False,
        start_after_ms=1,
        deadline_ms=2,
        depends_on=("job_0002",),
        expected_duration_ms=3,
        max_runtime_ms=4,
        grace_ms=5,
        on_unreachable=OnUnreachable.REPLACE,
        on_hang=OnHang.RESTART,
    ),
    status=JobStatus.CHECKPOINTING,
    reason="CHECKPOINT_BEGUN",
    message="Größe \u2028 ok",
    attempt=Attempt(
        number=2,
        shares=(Share(node_id="n1", device_ids=("d0", "d1"), device_type="H100"),),
        granted_at_ms=10,
        started_at_ms=11,
        ended_at_ms=12,
        stop=StopCause.DRAINED,
    ),
    failures_count=1,
    checkpoints=(
        Checkpoint(
            checkpoint_id="c1",
            step=100,
            uri="file:///c1",
            size_bytes=1 << 33,
            digest="sha256:1",
            created_at_ms=13,
            attempt=1,
        ),
    ),
    resume_checkpoint_id="c1",
    output_model_uri="file:///model",
    failure=Failure(
        category="RANK_FAILED",
        message="m",
        exit_code=1,
        signal=9,
        rank=3,
        lines=("a", "b"),
        node_id="n1",
    ),
    started_at_ms=14,
    completed_at_ms=15,
    version=16,
)
_FULL_NODE = node(
    generation=2,
    drain=Drain(requested_at_ms=1, force=True, reason="fan", deadline_ms=2, actor="ada"),
    unreachable_since_ms=3,
    joined_at_ms=4,
    updated_at_ms=5,
    version=6,
)

FULL: dict[Kind, Record] = {
    Kind.JOB: _FULL_JOB,
    Kind.LEASE: lease(
        cpu_count=1,
        memory_bytes=2,
        disk_bytes=3,
        node_rank=4,
        first_rank=5,
        local_world_size=6,
        granted_at_ms=7,
        action=LeaseAction.STOP,
        grace_ms=8,
        state=LeaseState.STOPPING,
        done=True,
        failure=Failure(category="C", message="m"),
        output_model_uri="u",
        started_at_ms=9,
        ended_at_ms=10,
    ),
    Kind.NODE: _FULL_NODE,
    Kind.KEY: key(),
    Kind.QUEUE: Queue(
        name="nightly",
        parent="research",
        weight=3,
        guaranteed_devices=4,
        max_devices=8,
        tenant_limits=(("*", 2), ("acme", 6)),
        accepts=False,
        places=False,
        order=Order.SHORTEST,
        preempts=True,
        aging_permille=5,
        updated_at_ms=1,
        version=2,
    ),
    Kind.USAGE: Usage(account="user/nightly/acme/ada", share_ppb=1, average_ppb=2, updated_at_ms=3),
    Kind.HISTORY: History(kin="name/acme/ada/train-#", reached=(3, 2), ended=(1,), updated_at_ms=1),
    Kind.REQUEST: request(job=_FULL_JOB, node=_FULL_NODE),
    Kind.ROLLING_DRAIN: RollingDrain(
        drain_id="drain_1",
        selector=(("rack", "a"),),
        max_unavailable=2,
        until_enabled=True,
        move=True,
        node_deadline_ms=3,
        reason="disks",
        actor="ada",
        requested_at_ms=4,
        cursor="n1",
        taken_count=1,
        ended_at_ms=5,
        cancelled=True,
        version=6,
    ),
    Kind.RULING: Ruling(
        job_id="job_0007",
        at_ms=1,
        queue_name="nightly",
        priority=9,
        devices_milli=2000,
        node_ids=("n1",),
        considered=(
            Considered(job_id="job_0001", attempt=1, rule="PRIORITY", loss_ms=2, goes=True),
        ),
        reason="disks",
        actor="ada",
    ),
    Kind.MIX: Mix(through_sequence=17, demands=((_FULL_JOB.demand, 18),)),
    Kind.ENTRY: Entry(
        lease_id="job_0001.1.0",
        job_id="job_0001",
        tenant_id="acme",
        user_id="ada",
        queue_name="nightly",
        node_id="n1",
        milli=2500,
        days=(Day(20_000, Spent(1, 2, 3, 4, 5, 6)), Day(20_001, Spent(redone=7))),
        cause="PREEMPTED",
        cause_id="job_0002",
        is_foreign=True,
        booked_at_ms=1,
    ),
}

# With a default wherever there is one.
BARE: tuple[Record, ...] = (
    job(),
    lease(),
    node(),
    request(),
    Queue(name="q"),
    Mix(),
    History(kin="k"),
    RollingDrain(drain_id="drain_1"),
)

DOCUMENT = Documents(bodies=(("job_0001", b"\x00\xffsubmitted"),))


def whole(record: Record) -> bytes:
    """Bytes of a record with every field, as earlier programs wrote them."""
    return msgspec.json.encode((1, record))


def defaults() -> bytes:
    """The defaults of the fields of all that is stored, by class, as JSON."""
    made: dict[str, dict[str, object]] = {}
    for kind in TYPES:
        _note_defaults(TYPES[kind], made)
    return msgspec.json.format(msgspec.json.encode(made, order="sorted"), indent=1)


def _note_defaults(kind: Any, made: dict[str, dict[str, object]]) -> None:
    for part in get_args(kind):
        _note_defaults(part, made)
    if is_dataclass(kind) and isinstance(kind, type) and kind.__name__ not in made:
        noted = made[kind.__name__] = {}
        for field in fields(kind):
            if field.default is not MISSING:
                noted[field.name] = field.default
        for inner in get_type_hints(kind).values():
            _note_defaults(inner, made)


if __name__ == "__main__":
    DEFAULTS.write_bytes(defaults())
    for kind, record in FULL.items():
        file = GOLDEN / f"{kind}.v{CODECS[kind].version}.json"
        if not file.exists():
            file.write_bytes(encode(record))
