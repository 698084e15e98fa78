"""Whether a request is within the bounds that the protos state. protovalidate is the judge.

It takes tens of microseconds for a job. The jobs of a batch are mostly the same job again, or a sweep: they
differ by name, labels and hyperparameters, whose few rules are read from the protos and looked at here. What
is left of them is judged once for all that are alike. A batch that seems to be at fault is judged whole.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import protovalidate
from google.protobuf.message import Message

from buf.validate import validate_pb2
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import BatchSubmitJobsRequest, SubmitJobRequest

Alike = tuple[bytes, ...]


class Seen(NamedTuple):
    """What was read of a submit, so that nobody reads it twice."""

    document: bytes  # what is kept of it: all but the fields that belong to the call
    labels: tuple[tuple[str, str], ...]
    alike: Alike = ()  # all but its name, labels, hyperparameters and what belongs to the call


def see(job: SubmitJobRequest) -> Seen:
    """Reads a submit."""
    training = job_pb2.TrainingConfig()
    training.CopyFrom(job.training_config)
    training.ClearField("hyperparameters")
    alike = (
        training.SerializeToString(),
        job.data_config.SerializeToString(),
        job.resource_config.SerializeToString(),
        job.output_config.SerializeToString(),
        job.scheduling_config.SerializeToString(),
    )
    return Seen(document_of(job), tuple(sorted(job.labels.items())), alike)


def document_of(job: SubmitJobRequest) -> bytes:
    """What is kept of a submit: all of it but the fields that belong to the call."""
    if not job.request_id and not job.validate_only:
        return job.SerializeToString(deterministic=True)
    kept = SubmitJobRequest()
    kept.CopyFrom(job)
    kept.ClearField("request_id")
    kept.ClearField("validate_only")
    return kept.SerializeToString(deterministic=True)


def violations(request: Message, seen: list[Seen] | None = None) -> list[protovalidate.Violation]:
    """What is out of its bounds, with its path. What was read of a batch's jobs is added to `seen`."""
    if isinstance(request, BatchSubmitJobsRequest) and len(request.jobs) <= _JOBS_MAX:
        seen = [] if seen is None else seen
        seen.extend(map(see, request.jobs))
        some = {one.alike: job for one, job in zip(seen, request.jobs, strict=True)}
        if some and 2 * len(some) < len(seen) and _fit(request.jobs, seen):
            few = BatchSubmitJobsRequest(request_id=request.request_id, jobs=some.values())
            if not protovalidate.collect_violations(few):
                return []
    return protovalidate.collect_violations(request)


def _fit(jobs: Iterable[SubmitJobRequest], seen: Iterable[Seen]) -> bool:
    """Whether what jobs differ by is surely within its bounds."""
    labels: set[tuple[tuple[str, str], ...]] = set()  # that fit
    names: set[tuple[str, ...]] = set()  # of hyperparameters, that fit
    for job, one in zip(jobs, seen, strict=True):
        if not (_NAME((job.name,)) and _REQUEST_ID((job.request_id,))):
            return False
        if one.labels not in labels and not _LABELS(dict(one.labels)):
            return False
        labels.add(one.labels)
        parameters = job.training_config.hyperparameters
        known = tuple(parameters)
        if len(one.document) > _PARAMETER_MAX or known not in names:
            if not _HYPERPARAMETERS(parameters):
                return False
            names.add(known)
    return True


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


def _longest(rules: Any) -> int:
    """The length up to which every text keeps to rules, in characters."""
    return 0 if rules.min_len or rules.pattern else int(rules.max_len)


def _rules(message: type[Message], name: str) -> Any:
    return message.DESCRIPTOR.fields_by_name[name].GetOptions().Extensions[validate_pb2.field]


_JOBS_MAX = _rules(BatchSubmitJobsRequest, "jobs").repeated.max_items
_NAME = _texts(_rules(SubmitJobRequest, "name").string)
_REQUEST_ID = _texts(_rules(SubmitJobRequest, "request_id").string)
_LABELS = _pairs(_rules(SubmitJobRequest, "labels").map)
_HYPERPARAMETERS = _pairs(_rules(job_pb2.TrainingConfig, "hyperparameters").map)
# A job that is shorter has no hyperparameter that is too long: nothing else is asked of them.
_PARAMETER_MAX = _longest(_rules(job_pb2.TrainingConfig, "hyperparameters").map.values.string)
