"""Each job of a batch is judged as if it came by itself."""

from __future__ import annotations

from collections.abc import Callable

import protovalidate
import pytest
from google.protobuf.message import Message

from coordinator.rpc.bounds import ALL_FAULTS_MAX, FAULTS_MAX, WHOLE_BYTES, Bounds, Seen, see
from coordinator.rpc.memo import VALUE_BYTES, Memo
from coordinator.runtime.refusal import Violation
from scaimind.service.patterns import told
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


def judged(
    request: Message, bounds: Bounds | None = None
) -> tuple[list[Violation], list[list[Violation]]]:
    """What is wrong with a request, and with each of its jobs. A judge finds it again, also when it has
    judged the same before."""
    bounds = bounds or Bounds()
    answers = []
    for _ in range(2):
        seen: list[Seen] = []
        found = bounds.violations(request, request.SerializeToString(), seen)
        answers.append(([*found], [[*one.faults] for one in seen]))
    assert answers[0] == answers[1]
    return answers[0]


def alone(job: api.SubmitJobRequest) -> list[Violation]:
    """What is wrong with a job when it is submitted by itself."""
    found, (again,) = judged(job)
    assert found == again
    assert [text for _, text in found] == [*map(told, protovalidate.collect_violations(job))]
    return found


def test_what_is_within_its_bounds_is_good() -> None:
    assert not any(map(alone, a_sweep(*AT_THE_EDGE).jobs))
    assert judged(a_sweep(*AT_THE_EDGE)) == ([], [[]] * 8)
    assert judged(a_sweep()) == ([], [[]] * 8)


@pytest.mark.parametrize("change", BEYOND)
def test_one_fault_among_many_good_jobs_is_found_and_refuses_that_one_alone(change: Change) -> None:
    batch = a_sweep(lambda _: None, change)
    expected = alone(batch.jobs[1])
    assert expected
    assert judged(batch) == ([], [[], expected, *[[]] * 6])


@pytest.mark.parametrize("change", BEYOND)
def test_a_fault_in_a_job_is_one_of_the_call_that_takes_all_or_none(change: Change) -> None:
    batch = a_sweep(lambda _: None, change)
    batch.atomic = True
    found, _ = judged(batch)
    assert found == [(f"jobs[1].{path}", text) for path, text in alone(batch.jobs[1])]


def test_a_batch_is_not_larger_than_it_may_be() -> None:
    long, good = "r" * 257, a_submit()
    bad = api.SubmitJobRequest()
    for request, field in (
        (api.BatchSubmitJobsRequest(jobs=[good] * 1001), "jobs"),
        (api.BatchSubmitJobsRequest(), "jobs"),
        (api.BatchSubmitJobsRequest(jobs=[bad] * 1001, atomic=True), "jobs"),
        (api.BatchSubmitJobsRequest(jobs=[good, bad], request_id=long), "request_id"),
    ):
        found, _ = judged(request)
        assert [path for path, _ in found] == [field]


def test_what_is_told_of_many_bad_jobs_has_its_limit() -> None:
    bad = a_submit({"name": ""})
    for number in range(400):
        bad.scheduling_config.depends_on.append("")
        bad.labels[f"a={number}"] = ""
    assert len(judged(bad)[0]) == FAULTS_MAX
    _, each = judged(api.BatchSubmitJobsRequest(jobs=[bad] * 50))
    assert {len(faults) for faults in each} == {FAULTS_MAX, 1}
    assert sum(map(len, each)) < ALL_FAULTS_MAX + 50
    found, _ = judged(api.BatchSubmitJobsRequest(jobs=[bad] * 50, atomic=True))
    assert len(found) == FAULTS_MAX


def test_of_what_is_large_only_the_first_fault_is_looked_for() -> None:
    bad = a_submit()
    bad.scheduling_config.depends_on.extend([""] * (WHOLE_BYTES // 2))
    assert len(judged(bad)[0]) == 1
    _, each = judged(api.BatchSubmitJobsRequest(jobs=[bad, a_submit(), bad]))
    assert [len(faults) for faults in each] == [1, 0, 1]
    some = a_submit()
    some.scheduling_config.depends_on.extend([""] * (WHOLE_BYTES // 8))
    _, each = judged(api.BatchSubmitJobsRequest(jobs=[some] * 6))
    assert [len(faults) for faults in each] == [FAULTS_MAX] * 3 + [1] * 3
    assert judged(api.BatchSubmitJobsRequest(jobs=[a_submit()] * 1000)) == ([], [[]] * 1000)


def test_what_was_good_before_is_good_again_and_a_fault_is_found_all_the_same() -> None:
    bounds, good = Bounds(), a_submit()
    assert judged(good, bounds) == ([], [[]])
    for number, change in enumerate(BEYOND):
        request = a_submit({"name": f"job-{number}"})
        request.labels["number"] = str(number)
        change(request)
        found, _ = judged(request, bounds)
        assert found == alone(request) != []


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
    seen: list[Seen] = []
    assert not Bounds().violations(api.BatchSubmitJobsRequest.FromString(body), body, seen)
    assert [[*one.faults] for one in seen] == [[], alone(fault)]


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
