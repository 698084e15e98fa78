"""A batch is judged as if each of its jobs were judged by itself."""

from __future__ import annotations

from collections.abc import Callable

import protovalidate
import pytest

from coordinator.rpc.bounds import violations
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.house import a_submit

Change = Callable[[api.SubmitJobRequest], object]


def a_sweep(*changes: Change) -> api.BatchSubmitJobsRequest:
    """Jobs that differ as those of a sweep do; some are changed further."""
    jobs = [a_submit({"name": f"job-{number}"}) for number in range(8)]
    for number, job in enumerate(jobs):
        job.labels["number"] = str(number)
        job.training_config.hyperparameters["learning_rate"] = f"{number}e-5"
    for job, change in zip(jobs, changes, strict=False):
        change(job)
    return api.BatchSubmitJobsRequest(jobs=jobs)


def set_label(key: str, value: str) -> Change:
    return lambda job: job.labels.update({key: value})


def set_rate(key: str, value: str) -> Change:
    return lambda job: job.training_config.hyperparameters.update({key: value})


def set_name(name: str) -> Change:
    return lambda job: setattr(job, "name", name)


def set_request(text: str) -> Change:
    return lambda job: setattr(job, "request_id", text)


def set_count(count: int) -> Change:
    return lambda job: setattr(job.resource_config, "gpu_count", count)


def many_labels(job: api.SubmitJobRequest) -> None:
    job.labels.update({f"k{number}": "" for number in range(64)})


AT_THE_EDGE: list[Change] = [
    set_name("\u4e16" * 256), set_label("k" * 128, "v" * 256), set_label("new\nline", ""),
    set_rate("k" * 128, "v" * 16384), set_request("r" * 256), set_count(1 << 20),
]  # fmt: skip
BEYOND: list[Change] = [
    set_name(""), set_name("n" * 257), set_label("", "v"), set_label("a=b", "v"),
    set_label("k" * 129, "v"), set_label("k", "v" * 257), set_label("a\n=", ""), many_labels,
    set_rate("", "v"), set_rate("k" * 129, "v"), set_rate("k", "v" * 16385),
    set_request("r" * 257), set_count((1 << 20) + 1), lambda job: job.ClearField("data_config"),
]  # fmt: skip


def paths(found: list[protovalidate.Violation]) -> list[str]:
    return [f"{one.proto.field} {one.proto.message}" for one in found]


def test_what_is_within_its_bounds_is_good() -> None:
    assert not protovalidate.collect_violations(a_sweep(*AT_THE_EDGE))
    assert not violations(a_sweep(*AT_THE_EDGE))
    assert not violations(a_sweep())


@pytest.mark.parametrize("change", BEYOND)
def test_one_fault_among_many_good_jobs_is_found_with_its_path(change: Change) -> None:
    batch = a_sweep(lambda _: None, change)
    expected = paths(protovalidate.collect_violations(batch))
    assert expected
    assert paths(violations(batch)) == expected


def test_a_batch_is_not_larger_than_it_may_be() -> None:
    batch = api.BatchSubmitJobsRequest(jobs=[a_submit()] * 1001)
    assert paths(violations(batch)) == paths(protovalidate.collect_violations(batch)) != []
    assert violations(api.BatchSubmitJobsRequest())
    assert violations(api.BatchSubmitJobsRequest(jobs=[a_submit()] * 3, request_id="r" * 257))
