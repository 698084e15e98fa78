"""Answers from copies, for methods that say that their answers may be kept.

Compiled from the descriptors of a method: what a resource is, whether the answer is one or a page
of them, and what the request asks for. A field of the request filters by the field of the resource
that has its name; `label`s by the map `labels`, `created_after` by `created_at`, `name_prefix` by
`name`. A request that asks for anything else is not answered from copies at all.

Fields that the protos call secret are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import time
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from gateway.catalog import BadCatalog, Method
from gateway.copies import Copies, Copy
from scaimind.v1 import options_pb2

PAGE_SIZE, PAGE_TOKEN, ORDER, NEXT, TOTAL = (
    "page_size",
    "page_token",
    "order_by",
    "next_page_token",
    "total_count",
)
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 20, 1000
LABELS = "labels"
DEFAULT_ORDER = "created_at desc"
TIMESTAMP = "google.protobuf.Timestamp"
# Tokens of our own, for pages out of copies; those of the coordinator only it can read.
_TOKEN = re.compile(r"copy\.([0-9]{1,6})")

Path = tuple[str, ...]
"""Names of fields, the inmost last."""
Filter = Callable[[Any, Any], bool]
"""Whether a resource is what the value of a request's field asks for."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """An answer out of copies, and how old the oldest of them is, in seconds."""

    response: Any
    age_s: int


class Recall:
    """Keeps the answers of one method, and answers in its place."""

    def __init__(self, method: Method) -> None:
        """Compiles the method.

        Raises:
            BadCatalog: its answers cannot be kept as it says.
        """
        key, response = method.cache, method.response
        self._key, self._response_class = key, method.response_class
        self._list: str | None = None
        resource = response
        if key not in response.fields_by_name:
            resource, self._list = _page_of(response, key)
        elif key not in method.request.fields_by_name:
            raise _bad(method)
        if method.streaming or any(binding.verb != "GET" for binding in method.bindings):
            raise _bad(method)
        self._resource_class = message_factory.GetMessageClass(resource)
        self._resource = resource
        self._secrets = tuple(_secrets(resource))
        self._filters = dict(_filters(method.request, resource))
        self._label = method.cache_label
        if self._label and not _is_map(resource.fields_by_name.get(LABELS)):
            raise _bad(method)
        self.kind = resource.name.lower() + "s"

    def keep(self, copies: Copies, tenant_id: str, response: Any) -> None:
        """Keeps what an answer of the coordinator holds."""
        found = [response] if self._list is None else getattr(response, self._list)
        named = [(getattr(one, self._key), _without(one, self._secrets)) for one in found]
        copies.keep(self.kind, tenant_id, [pair for pair in named if pair[0]])

    def forget(self, copies: Copies, tenant_id: str, request: Any) -> None:
        """Forgets the resource that the coordinator does not know any more."""
        if self._list is None:
            copies.keep(self.kind, tenant_id, [(getattr(request, self._key), None)])

    async def answer(self, copies: Copies, tenant_id: str, request: Any) -> Recalled | None:
        """The answer to a request out of copies, if they can give one."""
        if self._list is None:
            copy = await copies.one(self.kind, tenant_id, getattr(request, self._key))
            found = self._parsed([copy] if copy else [])
            return Recalled(found[0][0], _age_s(found)) if found else None
        offset = _offset(getattr(request, PAGE_TOKEN, ""))
        asked = {field.name: value for field, value in request.ListFields()}
        filters = {name: value for name, value in asked.items() if name not in _PAGING}
        if offset is None or filters.keys() - self._filters.keys():
            return None
        found = self._parsed(await copies.all(self.kind, tenant_id))
        if not found:
            return None
        asks = [(self._filters[name], value) for name, value in filters.items()]
        if self._label:
            asks.append((_has_all(LABELS), (self._label,)))
        found = [pair for pair in found if all(fits(pair[0], value) for fits, value in asks)]
        self._sort(found, asked.get(ORDER) or DEFAULT_ORDER)
        size = min(asked.get(PAGE_SIZE) or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        return self._page(found, offset, size=size)

    def _page(self, found: list[tuple[Any, float]], offset: int, *, size: int) -> Recalled:
        assert self._list is not None
        page = found[offset : offset + size]
        response = self._response_class()
        getattr(response, self._list).extend(resource for resource, _ in page)
        if TOTAL in response.DESCRIPTOR.fields_by_name:
            setattr(response, TOTAL, len(found))
        if NEXT in response.DESCRIPTOR.fields_by_name and offset + size < len(found):
            setattr(response, NEXT, f"copy.{offset + size}")
        return Recalled(response, _age_s(page or found))

    def _parsed(self, copies: list[Copy]) -> list[tuple[Any, float]]:
        found = []
        for copy in copies:
            try:
                found.append((self._resource_class.FromString(copy.body), copy.seen_at))
            except DecodeError:  # not what was written there
                continue
        return found

    def _sort(self, found: list[tuple[Any, float]], order: str) -> None:
        name, _, direction = order.partition(" ")
        field = self._resource.fields_by_name.get(name)
        if field is None or field.is_repeated:
            return
        value = _comparable(field)
        # The identifier makes the order one: pages must not overlap.
        found.sort(
            key=lambda pair: (value(getattr(pair[0], name)), getattr(pair[0], self._key)),
            reverse=direction == "desc",
        )


_PAGING = frozenset((PAGE_SIZE, PAGE_TOKEN, ORDER))


def _bad(method: Method) -> BadCatalog:
    return BadCatalog(f"{method.rpc_path}: answers cannot be kept by {method.cache!r}")


def _secrets(resource: Descriptor, above: tuple[Descriptor, ...] = ()) -> Iterator[Path]:
    """Where a resource may hold what is not to be kept."""
    for field in resource.fields:
        if field.GetOptions().Extensions[options_pb2.secret]:
            yield (field.name,)
        elif field.message_type is not None and field.message_type not in (resource, *above):
            inner = _secrets(field.message_type, (resource, *above))
            found = [(field.name, *path) for path in inner]
            if found and field.is_repeated:
                raise BadCatalog(f"{field.full_name}: a secret below a repeated field")
            yield from found


def _without(message: Any, secrets: Iterable[Path]) -> Any:
    """The message itself where it holds none of them, else a copy without."""
    bare = message
    for *above, name in secrets:
        if not getattr(_inner(bare, above), name):
            continue
        if bare is message:
            bare = type(message)()
            bare.CopyFrom(message)
        _inner(bare, above).ClearField(name)
    return bare


def _inner(message: Any, names: Iterable[str]) -> Any:
    for name in names:
        message = getattr(message, name)
    return message


def _page_of(response: Descriptor, key: str) -> tuple[Descriptor, str]:
    lists = [
        (field.message_type, field.name)
        for field in response.fields
        if field.is_repeated and field.message_type and key in field.message_type.fields_by_name
    ]
    if len(lists) != 1:
        raise BadCatalog(f"{response.full_name} is not a page of what has a {key!r}")
    return lists[0]


def _filters(request: Descriptor, resource: Descriptor) -> Iterator[tuple[str, Filter]]:
    fields = resource.fields_by_name
    for field in request.fields:
        name = field.name
        stem, _, last = name.rpartition("_")
        same, labels, moment = fields.get(name), fields.get(f"{name}s"), fields.get(f"{stem}_at")
        if same is not None and not same.is_repeated and same.message_type is None:
            yield name, _is_one(name, many=field.is_repeated)
        elif _is_map(labels) and field.is_repeated:
            yield name, _has_all(f"{name}s")
        elif (
            last == "prefix" and stem in fields and fields[stem].type == FieldDescriptor.TYPE_STRING
        ):
            yield name, _begins(stem)
        elif last in ("after", "before") and moment is not None and _is_time(moment):
            yield name, _is_beyond(moment.name, after=last == "after")


def _is_map(field: FieldDescriptor | None) -> bool:
    kind = field.message_type if field is not None else None
    return kind is not None and bool(kind.GetOptions().map_entry)


def _is_one(name: str, *, many: bool) -> Filter:
    if many:
        return lambda resource, values: getattr(resource, name) in values
    return lambda resource, value: bool(getattr(resource, name) == value)


def _has_all(name: str) -> Filter:
    def has_all(resource: Any, pairs: Any) -> bool:
        kept = getattr(resource, name)
        wanted = (pair.partition("=") for pair in pairs)
        return all(key in kept and kept[key] == value for key, _, value in wanted)

    return has_all


def _begins(name: str) -> Filter:
    return lambda resource, prefix: bool(getattr(resource, name).startswith(prefix))


def _is_beyond(name: str, *, after: bool) -> Filter:
    def is_beyond(resource: Any, moment: Any) -> bool:
        mine, other = _instant(getattr(resource, name)), _instant(moment)
        return mine >= other if after else mine < other

    return is_beyond


def _is_time(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == TIMESTAMP


def _instant(stamp: Any) -> tuple[int, int]:
    return (stamp.seconds, stamp.nanos)


def _comparable(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, "")
    if _is_time(field):
        return _instant
    return (lambda message: 0) if field.message_type is not None else (lambda value: value)


def _offset(token: str) -> int | None:
    """Where a page begins; None for a token that only the coordinator can read."""
    if not token:
        return 0
    found = _TOKEN.fullmatch(token)
    return int(found[1]) if found else None


def _age_s(found: list[tuple[Any, float]]) -> int:
    return max(0, round(time() - min((seen_at for _, seen_at in found), default=time())))
