"""An HTTP request into a protobuf message, compiled once for each route.

Path variables, the query (or the body, or both) and two headers fill the fields: `Idempotency-Key`
fills `request_id`, and on streams `Last-Event-ID` fills `after`, whatever the query says. A field
that is given twice with two values is a fault, and so is a name that nothing takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.catalog import BadCatalog
from gateway.codes import Code
from gateway.entries import Entries, Refused
from gateway.faults import MAX_FAULTS, Faults, Place, TooManyFaults
from gateway.json_in import JsonReader, Malformed, Setter, decode
from gateway.routes import Route
from gateway.scalars import text_value
from gateway.status import Failure, invalid
from gateway.validation import prepare, violations

IDEMPOTENCY_FIELD, IDEMPOTENCY_HEADER = "request_id", b"idempotency-key"
RESUME_FIELD, RESUME_HEADER = "after", b"last-event-id"
MAX_PARAMETERS = 256
QUERY_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field that text can fill: a scalar, a time, or a list of those."""

    field: FieldDescriptor
    parents: tuple[str, ...]
    setter: Setter
    value: Callable[[str], Any]
    """Turns text into the JSON value that the setter takes."""

    @property
    def prefix(self) -> str:
        """What stands before the field's name in its path."""
        return "".join(f"{name}." for name in self.parents)

    def holder(self, message: Any) -> Any:
        """The message that has the field."""
        for name in self.parents:
            message = getattr(message, name)
        return message

    def fill(self, message: Any, texts: list[str], *, place: Place) -> None:
        """Sets the field from the texts that were given for it, at least one; `place` is the
        request's."""
        values = [self.value(text) for text in texts]
        if not self.field.is_repeated and len(values) > 1:
            place.fault(self.prefix + self.field.name, "given more than once")
            return
        value = values if self.field.is_repeated else values[0]
        for name in self.parents:
            place = place.inside(name)
        self.setter(self.holder(message), value, place)


class Binder:
    """Makes the request message of one route."""

    def __init__(self, route: Route, reader: JsonReader) -> None:
        """Compiles the route.

        Raises:
            BadCatalog: the template, the body rule or a bound does not fit the message.
        """
        method, binding = route.method, route.binding
        self._new = method.request_class
        self.takes_body = bool(binding.body)
        leaves = {
            leaf.prefix + leaf.field.name: leaf
            for leaf in _leaves(method.request, reader, parents=())
        }
        self.path: Mapping[str, Leaf] = {
            name: _singular(leaves, name, path=binding.path)
            for name in (variable.field for variable in route.template.variables)
        }
        self._key = leaves.get(IDEMPOTENCY_FIELD)
        self._resume = leaves.get(RESUME_FIELD) if method.streaming else None
        self._body = _body_setter(method.request, binding.body, reader=reader)
        self.entries = Entries(method, reader) if method.each else None
        bound = (*self.path, *([binding.body] if binding.body else []))
        self.query: Mapping[str, Leaf] = {
            name: leaf
            for name, leaf in leaves.items()
            if binding.body != "*" and not _within(name, bound)
        }
        prepare(self._new)

    @property
    def keyed(self) -> bool:
        """Whether the request has a `request_id`, so that it can be repeated safely."""
        return self._key is not None

    @property
    def resumable(self) -> bool:
        """Whether `Last-Event-ID` says where a stream goes on."""
        return self._resume is not None

    def resumes(self, request: Any) -> Callable[[str], Any] | None:
        """How to ask for what comes after an event instead, by its id; None where one cannot."""
        if self._resume is None or self._resume.parents:
            return None

        def after(identifier: str) -> Any:
            other = self._new()
            other.CopyFrom(request)
            setattr(other, RESUME_FIELD, identifier)
            return other

        return after

    def bind(
        self,
        variables: Mapping[str, str],
        *,
        query: bytes,
        headers: Mapping[bytes, bytes],
        body: bytes,
        refused: Refused | None = None,
    ) -> Any:
        """Makes the message. What is wrong with items that are judged by themselves is put into `refused`;
        without it, it is wrong with the request.

        Raises:
            Failure: 400 for a body that is not JSON, 422 with one detail for each fault.
        """
        message, place = self._new(), Place(Faults())
        value = _json(body) if body else None
        fill, entries = self._body, self.entries
        apart = entries if refused is not None and entries and entries.are_apart(value) else None
        if apart is not None and refused is not None:
            fill = apart.filler(refused)
        try:
            if value is not None:
                assert fill is not None
                fill(message, value, place)
            if query:
                self._fill_query(message, query, place=place)
            for name, text in variables.items():
                _agree(message, self.path[name], text=text, source="the path", place=place)
            self._fill_headers(message, headers, place=place)
        except TooManyFaults:
            raise invalid(place.faults.found) from None
        self._check(message, place.faults, are_apart=apart is not None)
        if apart is not None and refused:
            apart.mark(message, refused, body=body)
        return message

    def _check(self, message: Any, faults: Faults, *, are_apart: bool) -> None:
        """Bounds are checked even where there are faults, so that one answer tells them all; a
        field that could not be read is not also told to be missing."""
        told = {field for field, _ in faults.found}
        broken = violations(message)
        if self.entries is not None and not are_apart:
            broken = itertools.chain(broken, self.entries.violations(message))
        more = (pair for pair in broken if pair[0] not in told)
        details = [*faults.found, *itertools.islice(more, MAX_FAULTS)]
        if details:
            raise invalid(details)

    def _fill_query(self, message: Any, query: bytes, *, place: Place) -> None:
        try:
            pairs = parse_qsl(
                query.decode("ascii"),
                keep_blank_values=True,
                strict_parsing=False,
                errors="strict",
                max_num_fields=MAX_PARAMETERS,
            )
        except ValueError:
            raise Failure(Code.INVALID_ARGUMENT, message="The query cannot be read.") from None
        texts: dict[str, list[str]] = {}
        for name, text in pairs:
            texts.setdefault(name, []).append(text)
        for name, given in texts.items():
            leaf = self.query.get(name)
            if leaf is None:
                place.fault(name, "unknown query parameter")
            else:
                leaf.fill(message, given, place=place)

    def _fill_headers(self, message: Any, headers: Mapping[bytes, bytes], *, place: Place) -> None:
        key = headers.get(IDEMPOTENCY_HEADER)
        if key and self._key is not None:
            text = key.decode("latin-1")
            _agree(message, self._key, text=text, source="Idempotency-Key", place=place)
        last = headers.get(RESUME_HEADER)
        if last and self._resume is not None:
            self._resume.fill(message, [last.decode("utf-8", "replace")], place=place)


def _agree(message: Any, leaf: Leaf, *, text: str, source: str, place: Place) -> None:
    """Sets a field that the body or query may have set already, to the same value."""
    holder, name = leaf.holder(message), leaf.field.name
    before = getattr(holder, name)
    leaf.fill(message, [text], place=place)
    if before != leaf.field.default_value and before != getattr(holder, name):
        place.fault(leaf.prefix + name, f"differs from {source}")


def _body_setter(request: Descriptor, body: str, *, reader: JsonReader) -> Setter | None:
    if not body:
        return None
    if body == "*":
        return reader.filler(request)
    if body not in request.fields_by_name:
        raise BadCatalog(f"{request.full_name} has no field {body!r} to take the body")
    return reader.fields(request)[body]


def _leaves(message: Descriptor, reader: JsonReader, *, parents: tuple[str, ...]) -> Iterable[Leaf]:
    setters = reader.fields(message)
    for field in message.fields:
        child = field.message_type
        if child is None or child.full_name == "google.protobuf.Timestamp":
            yield Leaf(field, parents, setters[field.name], text_value(field))
        elif not field.is_repeated and len(parents) < QUERY_DEPTH:
            yield from _leaves(child, reader, parents=(*parents, field.name))


def _singular(leaves: Mapping[str, Leaf], name: str, *, path: str) -> Leaf:
    leaf = leaves.get(name)
    if leaf is None or leaf.field.is_repeated or leaf.field.message_type is not None:
        raise BadCatalog(f"{path}: {name} is not a field that a path can fill")
    return leaf


def _within(name: str, bound: Iterable[str]) -> bool:
    return any(name == field or name.startswith(field + ".") for field in bound)


def _json(body: bytes) -> Any:
    try:
        value = decode(body)
    except Malformed as error:
        raise Failure(Code.MALFORMED_JSON, message=f"The body is not JSON: {error}.") from None
    # `null` fills nothing, and a body that is there must say something.
    return value if value is not None else []
