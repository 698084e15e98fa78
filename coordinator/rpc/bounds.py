"""Whether a request is within the bounds that the protos state. protovalidate is the judge.

It takes tens of microseconds for a job. Jobs are mostly the same job again, or a sweep: they differ by name,
labels and hyperparameters, whose few rules are read from the protos and looked at here. What is left of them
is judged once for all that are alike, and remembered. Which are alike their bytes tell: they are read by
types that leave what is not asked for as it came. What seems to be at fault is judged whole.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import protovalidate
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from buf.validate import validate_pb2
from coordinator.rpc.memo import Memo
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import BatchSubmitJobsRequest, SubmitJobRequest

Pairs = tuple[tuple[str, str], ...]


class Seen(NamedTuple):
    """What was read of a submit, so that nobody reads it twice."""

    document: bytes  # what is kept of it: all but the fields that belong to the call
    labels: Pairs
    alike: bytes  # all but its name, labels, hyperparameters and what belongs to the call


class Bounds:
    """Judges requests, and remembers what jobs have in common that was good."""

    def __init__(self) -> None:
        self._good: Memo[bool] = Memo()

    def violations(
        self, request: Message, body: bytes, seen: list[Seen] | None = None
    ) -> list[protovalidate.Violation]:
        """What is out of its bounds, with its path, in a request that came as these bytes.

        What was read of jobs that are submitted is added to `seen`.
        """
        if isinstance(request, SubmitJobRequest):
            bodies, jobs = [body], [request]
        elif isinstance(request, BatchSubmitJobsRequest) and 0 < len(request.jobs) <= _JOBS_MAX:
            bodies, jobs = _Bodies.FromString(body).jobs, [*request.jobs]
        else:
            return protovalidate.collect_violations(request)
        reader = _Reader()
        read = [*map(reader.see, bodies)]
        if seen is not None:
            seen.extend(read)
        new = {
            one.alike: job
            for one, job in zip(read, jobs, strict=True)
            if one.alike not in self._good
        }
        if not reader.fit:
            return protovalidate.collect_violations(request)
        if isinstance(request, SubmitJobRequest):
            found = protovalidate.collect_violations(request) if new else []
        else:
            some = [*new.values()] or jobs[:1]
            few = BatchSubmitJobsRequest(request_id=request.request_id, jobs=some)
            found = protovalidate.collect_violations(few)
            found = found and protovalidate.collect_violations(request)
        for alike in () if found else new:
            self._good.put(alike, True)
        return found


def see(body: bytes) -> Seen:
    """Reads a submit that was judged before."""
    return _Reader().see(body)


class _Reader:
    """Reads the jobs of one request.

    Attributes:
        fit: whether what they may differ by is surely within its bounds.
    """

    def __init__(self) -> None:
        self.fit = True
        self._labels: dict[tuple[bytes, ...], Pairs] = {}
        self._fine: set[bytes] = set()  # hyperparameters

    def see(self, body: bytes) -> Seen:
        """What it says."""
        job: Any = _Job.FromString(body)
        if job.request_id or job.validate_only:
            self.fit = self.fit and _REQUEST_ID(job.request_id)
            job.ClearField("request_id")
            job.ClearField("validate_only")
            body = job.SerializeToString()
        entries = tuple(job.labels)
        labels = self._labels.get(entries)
        if labels is None:
            pairs = [*map(_Pair.FromString, entries)]
            self.fit = self.fit and len(pairs) <= _LABELS_MAX and _LABELS(pairs)
            labels = tuple(sorted({pair.key: pair.value for pair in pairs}.items()))
            self._labels[entries] = labels
        training = job.training_config
        parameters = [*training.hyperparameters]
        if parameters:
            new = {*parameters} - self._fine
            if new:
                self.fit = self.fit and _PARAMETERS([*map(_Pair.FromString, new)])
                self._fine |= new
            self.fit = self.fit and len(parameters) <= _PARAMETERS_MAX
            training.ClearField("hyperparameters")
        self.fit = self.fit and _NAME(job.name)
        job.ClearField("name")
        job.ClearField("labels")
        return Seen(body, labels, job.SerializeToString())


def _text(rules: Any) -> Callable[[str], bool]:
    """Whether a text keeps to rules."""
    assert {one.name for one, _ in rules.ListFields()} <= {"min_len", "max_len", "pattern"}
    low, high = rules.min_len, rules.max_len if rules.HasField("max_len") else sys.maxsize
    search = re.compile(rules.pattern).search if rules.pattern else None

    def fit(text: str) -> bool:
        if not low <= len(text) <= high:
            return False
        return search is None or (search(text) is not None and "\n" not in text)

    return fit


def _pairs(rules: Any) -> Callable[[Iterable[Any]], bool]:
    """Whether each pair of a map keeps to rules; how many there may be is not looked at."""
    assert {one.name for one, _ in rules.ListFields()} <= {"max_pairs", "keys", "values"}
    key_fits, value_fits = _text(rules.keys.string), _text(rules.values.string)

    def fit(pairs: Iterable[Any]) -> bool:
        for one in pairs:  # noqa: SIM110 - all() takes twice as long
            if not key_fits(one.key) or not value_fits(one.value):
                return False
        return True

    return fit


def _rules(message: type[Message], name: str) -> Any:
    return message.DESCRIPTOR.fields_by_name[name].GetOptions().Extensions[validate_pb2.field]


def _shallow(title: str, of: Descriptor | None, **types: str) -> descriptor_pb2.DescriptorProto:
    """A type for the same bytes that knows only some fields, and keeps the others as they came."""
    kinds = descriptor_pb2.FieldDescriptorProto
    message = descriptor_pb2.DescriptorProto(name=title)
    for number, (field, kind) in enumerate(types.items(), 1):
        one = message.field.add(
            name=field, number=of.fields_by_name[field].number if of else number
        )
        one.label = kinds.LABEL_REPEATED if kind == "bytes" else kinds.LABEL_OPTIONAL
        one.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
        if one.type == kinds.TYPE_MESSAGE:
            one.type_name = ".shallow.Training"
    return message


def _shallow_types() -> list[Any]:
    """Of the bodies of a batch's jobs; of a job; of a pair of a map."""
    job = {"request_id": "string", "validate_only": "bool", "training_config": "message"}
    job |= {"name": "string", "labels": "bytes"}
    types = (
        _shallow("Bodies", BatchSubmitJobsRequest.DESCRIPTOR, jobs="bytes"),
        _shallow("Training", job_pb2.TrainingConfig.DESCRIPTOR, hyperparameters="bytes"),
        _shallow("Job", SubmitJobRequest.DESCRIPTOR, **job),
        _shallow("Pair", None, key="string", value="string"),
    )
    file = descriptor_pb2.FileDescriptorProto(
        name="shallow", package="shallow", syntax="proto3", message_type=types
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"shallow.{name}") for name in ("Bodies", "Job", "Pair"))
    return [message_factory.GetMessageClass(one) for one in found]


_Bodies, _Job, _Pair = _shallow_types()
_JOBS_MAX = _rules(BatchSubmitJobsRequest, "jobs").repeated.max_items
_NAME = _text(_rules(SubmitJobRequest, "name").string)
_REQUEST_ID = _text(_rules(SubmitJobRequest, "request_id").string)
_LABELS_MAX = _rules(SubmitJobRequest, "labels").map.max_pairs
_LABELS = _pairs(_rules(SubmitJobRequest, "labels").map)
_PARAMETERS_MAX = _rules(job_pb2.TrainingConfig, "hyperparameters").map.max_pairs
_PARAMETERS = _pairs(_rules(job_pb2.TrainingConfig, "hyperparameters").map)
