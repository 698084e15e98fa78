"""Requests and records for the tests of the border."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.core.commands import Caller
from coordinator.core.reasons import Reason
from coordinator.core.records import Demand, Job, JobStatus, Key, Policy
from coordinator.runtime.refusal import Refusal
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

CALLER = Caller(tenant_id="acme", user_id="ann")
NOW_MS = 1_700_000_000_000


def a_submit(change: Callable[[SubmitJobRequest], object] | None = None) -> SubmitJobRequest:
    """A good submit, changed."""
    request = SubmitJobRequest(name="first")
    training = request.training_config
    training.training_type = job_pb2.TrainingConfig.SFT
    training.base_model.model_id = "tiny"
    training.framework.type = job_pb2.Framework.CUSTOM
    training.framework.custom_script_path = "train.py"
    request.data_config.sources.add(path="data.txt")
    request.resource_config.gpu_count = 1
    if change is not None:
        change(request)
    return request


def a_job(job_id: str = "job_a", **fields: object) -> Job:
    """A queued job of tenant acme."""
    values: dict[str, object] = {
        "sequence": 1,
        "lineage_id": job_id,
        "tenant_id": "acme",
        "user_id": "ann",
        "name": "first",
        "demand": Demand(device_count=1),
        "policy": Policy(),
        "status": JobStatus.QUEUED,
        "reason": Reason.WAITING_FOR_CAPACITY.value,
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
        **fields,
    }
    return Job(job_id=job_id, **values)  # type: ignore[arg-type]


def a_key(sha256: str, **fields: object) -> Key:
    """A key of tenant acme that may view."""
    values: dict[str, object] = {
        "tenant_id": "acme",
        "user_id": "ann",
        "permissions": ("VIEW",),
        "created_at_ms": NOW_MS,
        **fields,
    }
    return Key(key_id=f"key_{sha256[:8]}", sha256=sha256, **values)  # type: ignore[arg-type]


def refusal_of(call: Callable[[], object], reason: Reason = Reason.INVALID_ARGUMENT) -> Refusal:
    """The refusal with this reason that the call ends with."""
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.reason is reason
    return caught.value
