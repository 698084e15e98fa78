"""Whether a request is within the bounds that the protos state. protovalidate is the judge.

It takes tens of microseconds for a job. The jobs of a batch are mostly the same job again, or a sweep: they
differ by name, labels and hyperparameters, whose few rules are read from the protos and looked at here. What
is left of them is judged once for all that are alike. A batch that seems to be at fault is judged whole.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import protovalidate
from google.protobuf.message import Message

from buf.validate import validate_pb2
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import BatchSubmitJobsRequest, SubmitJobRequest

Alike = tuple[bytes, ...]


def violations(request: Message) -> list[protovalidate.Violation]:
    """What is out of its bounds, with its path."""
    if isinstance(request, BatchSubmitJobsRequest):
        different = {job.SerializeToString(): job for job in request.jobs}
        some = {alike(job): job for job in different.values()} if _fit(different.values()) else {}
        if 2 * len(some) < len(request.jobs) <= _JOBS_MAX:
            few = BatchSubmitJobsRequest(request_id=request.request_id, jobs=some.values())
            if some and not protovalidate.collect_violations(few):
                return []
    return protovalidate.collect_violations(request)


def alike(job: SubmitJobRequest) -> Alike:
    """All of a job but its name, its labels, its hyperparameters and what belongs to the call."""
    training = job_pb2.TrainingConfig()
    training.CopyFrom(job.training_config)
    training.ClearField("hyperparameters")
    return (
        training.SerializeToString(),
        job.data_config.SerializeToString(),
        job.resource_config.SerializeToString(),
        job.output_config.SerializeToString(),
        job.scheduling_config.SerializeToString(),
    )


def _fit(jobs: Iterable[SubmitJobRequest]) -> bool:
    """Whether what jobs differ by is surely within its bounds."""
    return all(
        _NAME((job.name,))
        and _REQUEST_ID((job.request_id,))
        and _LABELS(job.labels)
        and _HYPERPARAMETERS(job.training_config.hyperparameters)
        for job in jobs
    )


def _texts(rules: Any) -> Callable[[Collection[str]], bool]:
    """Whether each of some texts keeps to rules; there is at least one."""
    assert {one.name for one, _ in rules.ListFields()} <= {"min_len", "max_len", "pattern"}
    low, high = rules.min_len, rules.max_len if rules.HasField("max_len") else sys.maxsize
    search = re.compile(rules.pattern).search

    def fit(texts: Collection[str]) -> bool:
        lengths = [*map(len, texts)]
        if min(lengths) < low or max(lengths) > high:
            return False
        return not rules.pattern or all(search(text) and "\n" not in text for text in texts)

    return fit


def _pairs(rules: Any) -> Callable[[Mapping[str, str]], bool]:
    """Whether a map of texts keeps to rules."""
    assert {one.name for one, _ in rules.ListFields()} <= {"max_pairs", "keys", "values"}
    keys_fit, values_fit = _texts(rules.keys.string), _texts(rules.values.string)

    def fit(pairs: Mapping[str, str]) -> bool:
        keys = [*pairs]
        return not keys or (
            len(keys) <= rules.max_pairs
            and keys_fit(keys)
            and values_fit([pairs[key] for key in keys])
        )

    return fit


def _rules(message: type[Message], name: str) -> Any:
    return message.DESCRIPTOR.fields_by_name[name].GetOptions().Extensions[validate_pb2.field]


_JOBS_MAX = _rules(BatchSubmitJobsRequest, "jobs").repeated.max_items
_NAME = _texts(_rules(SubmitJobRequest, "name").string)
_REQUEST_ID = _texts(_rules(SubmitJobRequest, "request_id").string)
_LABELS = _pairs(_rules(SubmitJobRequest, "labels").map)
_HYPERPARAMETERS = _pairs(_rules(job_pb2.TrainingConfig, "hyperparameters").map)
