"""A batch is judged as if each of its jobs were judged by itself."""

from __future__ import annotations

from collections.abc import Callable

import protovalidate
import pytest
from google.protobuf.message import Message

from coordinator.rpc.bounds import Bounds, see
from coordinator.rpc.memo import VALUE_BYTES, Memo
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


def violations(request: Message) -> list[protovalidate.Violation]:
    """By a judge that has seen nothing yet; one that has judged the same before finds the same."""
    bounds = Bounds()
    found = bounds.violations(request, request.SerializeToString())
    again = bounds.violations(request, request.SerializeToString())
    assert paths(again) == paths(found)
    return found


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


def test_what_was_good_before_is_good_again_and_a_fault_is_found_all_the_same() -> None:
    bounds, good = Bounds(), a_submit()
    assert not bounds.violations(good, good.SerializeToString())
    for number, change in enumerate(BEYOND):
        request = a_submit({"name": f"job-{number}"})
        request.labels["number"] = str(number)
        change(request)
        found = paths(bounds.violations(request, request.SerializeToString()))
        assert found == paths(protovalidate.collect_violations(request)) != []


def test_a_pair_that_another_takes_the_place_of_makes_none_fine_for_the_next_job() -> None:
    fault = a_submit()
    fault.training_config.hyperparameters["k"] = "v" * 16385
    place = a_submit()
    place.training_config.hyperparameters["k"] = "v"
    hidden = fault.SerializeToString() + place.SerializeToString()  # the last one counts
    job = api.SubmitJobRequest.FromString(hidden)
    assert not protovalidate.collect_violations(job)
    first, second = (api.BatchSubmitJobsRequest(jobs=[one]) for one in (job, fault))
    tag = first.SerializeToString()[:1]
    body = tag + _varint(len(hidden)) + hidden + second.SerializeToString()
    batch = api.BatchSubmitJobsRequest.FromString(body)
    found = Bounds().violations(batch, body)
    assert paths(found) == paths(protovalidate.collect_violations(batch)) != []


def _varint(number: int) -> bytes:
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + _varint(high) if high else bytes([low])


def test_jobs_are_alike_that_differ_by_name_labels_hyperparameters_and_what_is_of_the_call() -> (
    None
):
    plain = a_submit()
    other = a_submit({"name": "other"})
    other.labels["k"] = "v"
    other.training_config.hyperparameters["rate"] = "1"
    other.request_id, other.validate_only = "again", True
    found = see(other.SerializeToString())
    assert found.alike == see(plain.SerializeToString()).alike
    assert found.labels == tuple(sorted(other.labels.items()))
    other.data_config.sources[0].path += "x"
    assert see(other.SerializeToString()).alike != found.alike


def test_what_is_remembered_has_its_limit() -> None:
    memo = Memo[int](bytes_max=3 * VALUE_BYTES)
    for number in range(4):
        memo.put(bytes([number]), number)
    assert [memo.get(bytes([number])) for number in range(4)] == [None, None, 2, 3]
    assert bytes([3]) in memo
