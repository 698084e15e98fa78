"""Whether a request is within the bounds that the protos state. protovalidate is the judge.

It takes tens of microseconds for a job. Jobs are mostly the same job again, or a sweep: they differ by name,
labels and hyperparameters, whose few rules are read from the protos and looked at here. What is left of them
is judged once for all that are alike, and remembered. Which are alike their bytes tell: they are read by
types that leave what is not asked for as it came. What seems to be at fault is judged whole. The jobs of a
batch are judged each by itself: what is wrong with one is not the fault of the call.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import protovalidate
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from buf.validate import validate_pb2
from coordinator.rpc.errors import quoted
from coordinator.rpc.memo import Memo
from coordinator.runtime.refusal import Violation
from scaimind.service.patterns import told
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import BatchSubmitJobsRequest, SubmitJobRequest

Pairs = tuple[tuple[str, str], ...]
FAULTS_MAX = 100  # told of one request, or of one job of a batch
ALL_FAULTS_MAX = 1000  # of all jobs of a batch together, beside the first of each
WHOLE_BYTES = 32 * 1024  # of what is at fault; beyond, the first fault is all that is looked for


class Seen(NamedTuple):
    """What was read of a submit, so that nobody reads it twice."""

    document: bytes  # what is kept of it: all but the fields that belong to the call
    labels: Pairs
    alike: bytes  # all but its name, labels, hyperparameters and what belongs to the call
    faults: tuple[Violation, ...] = ()  # of a job of a batch; each is judged by itself


class Bounds:
    """Judges requests, and remembers what jobs have in common that was good."""

    def __init__(self) -> None:
        self._good: Memo[bool] = Memo()

    def violations(
        self, request: Message, body: bytes, seen: list[Seen] | None = None
    ) -> tuple[Violation, ...]:
        """What refuses a request that came as these bytes: fields that are out of their bounds.

        What was read of jobs that are submitted is added to `seen`. The faults of a job of a batch stand
        there; of one that is accepted whole or not at all they are the request's as well.
        """
        if isinstance(request, SubmitJobRequest):
            (one,) = self._read([body], [request])
            if seen is not None:
                seen.append(one)
            return one.faults
        found = _faults(request, is_large=len(body) > WHOLE_BYTES)
        if found or not isinstance(request, BatchSubmitJobsRequest):
            return found
        read = self._read(_Bodies.FromString(body).jobs, request.jobs)
        if seen is not None:
            seen.extend(read)
        if not request.atomic:
            return ()
        inner = (
            (f"jobs[{n}].{path}", text) for n, one in enumerate(read) for path, text in one.faults
        )
        return tuple(itertools.islice(inner, FAULTS_MAX))

    def _read(self, bodies: Iterable[bytes], jobs: Sequence[SubmitJobRequest]) -> list[Seen]:
        """What each of the jobs says, and what is wrong with it."""
        reader, told, bad_bytes = _Reader(), 0, 0
        read = []
        for number, body in enumerate(bodies):
            one, is_fit = reader.see(body)
            if not (is_fit and one.alike in self._good):
                most = min(FAULTS_MAX, max(1, ALL_FAULTS_MAX - told))
                is_large = bad_bytes + len(body) > WHOLE_BYTES
                faults = _faults(jobs[number], at_most=most, is_large=is_large)
                if faults:
                    one = one._replace(faults=faults)
                    told, bad_bytes = told + len(faults), bad_bytes + len(body)
                elif is_fit:
                    self._good.put(one.alike, True)
            read.append(one)
        return read


def see(body: bytes) -> Seen:
    """Reads a submit that was judged before."""
    return _Reader().see(body)[0]


class _Reader:
    """Reads the jobs of one request."""

    def __init__(self) -> None:
        self._rests: dict[bytes, _Rest] = {}
        self._fine: set[bytes] = set()  # hyperparameters that are within their bounds

    def see(self, body: bytes) -> tuple[Seen, bool]:
        """What a job says; whether what jobs may differ by is surely within its bounds."""
        job: Any = _Job.FromString(body)
        is_fit = _NAME(job.name)
        if job.request_id or job.validate_only:
            is_fit = is_fit and _REQUEST_ID(job.request_id)
            job.ClearField("request_id")
            job.ClearField("validate_only")
            body = job.SerializeToString()
        training = job.training_config
        parameters = [*training.hyperparameters]
        if parameters:
            new = [pair for pair in parameters if pair not in self._fine]
            if _PARAMETERS(map(_Pair.FromString, new)):
                self._fine.update(new)
            else:
                is_fit = False
            is_fit = is_fit and len(parameters) <= _PARAMETERS_MAX
            training.ClearField("hyperparameters")
        job.ClearField("name")
        rest = job.SerializeToString()
        known = self._rests.get(rest) or self._read(job, rest)
        return Seen(body, known.labels, known.alike), is_fit and known.is_fit

    def _read(self, job: Any, rest: bytes) -> _Rest:
        """Reads what is left of a job; most of a request have it in common."""
        pairs = [*map(_Pair.FromString, job.labels)]
        is_fit = len(pairs) <= _LABELS_MAX and _LABELS(pairs)
        labels = tuple(sorted({pair.key: pair.value for pair in pairs}.items()))
        job.ClearField("labels")
        known = self._rests[rest] = _Rest(labels, job.SerializeToString(), is_fit)
        return known


class _Rest(NamedTuple):
    """What a job says beside its name, its hyperparameters and what belongs to the call."""

    labels: Pairs
    alike: bytes
    is_fit: bool  # the labels


def _faults(
    request: Message, *, at_most: int = FAULTS_MAX, is_large: bool
) -> tuple[Violation, ...]:
    """What protovalidate finds, with its path. It makes an object of some microseconds of each fault, of
    which there may be one for every second byte."""
    found = protovalidate.collect_violations(request, fail_fast=is_large or at_most == 1)
    return tuple((_path(one.proto), told(one)) for one in found[:at_most])


def _path(violation: Any) -> str:
    return ".".join(_steps(violation)) or "request"


def _steps(violation: Any) -> Iterator[str]:
    for element in violation.field.elements if violation.field else ():
        subscript = element.subscript
        value = getattr(subscript, "value", None) if subscript is not None else None
        if isinstance(value, str):
            value = quoted(value)
        yield element.field_name + ("" if value is None else f"[{value}]")


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
_NAME = _text(_rules(SubmitJobRequest, "name").string)
_REQUEST_ID = _text(_rules(SubmitJobRequest, "request_id").string)
_LABELS_MAX = _rules(SubmitJobRequest, "labels").map.max_pairs
_LABELS = _pairs(_rules(SubmitJobRequest, "labels").map)
_PARAMETERS_MAX = _rules(job_pb2.TrainingConfig, "hyperparameters").map.max_pairs
_PARAMETERS = _pairs(_rules(job_pb2.TrainingConfig, "hyperparameters").map)
