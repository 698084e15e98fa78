"""From a dict, as in a job file or a REST body, to the request message that it means.

The same rules as over REST: snake_case names, enums by name, times in RFC 3339, string maps that
also take numbers and booleans. Every fault is named with the path of its field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from scaimind.client.errors import FieldError, InvalidArgument
from scaimind.client.scalars import Wrong, judged, nearest

M = TypeVar("M", bound=Message)

MAX_DEPTH = 32


def to_message(body: Mapping[str, Any], message: M) -> M:
    """Fills `message` from `body` and returns it.

    Raises:
        InvalidArgument: fields are unknown or have values of the wrong kind; all are named.
    """
    faults: list[FieldError] = []
    plain = _message(body, message.DESCRIPTOR, path=(), faults=faults)
    if not faults:
        try:
            ParseDict(plain, message)
            return message
        except (ParseError, ValueError) as error:
            faults.append(FieldError("", str(error)))
    raise InvalidArgument("the request does not fit the schema", details=faults)


def _message(value: Any, kind: Any, *, path: tuple[str, ...], faults: list[FieldError]) -> Any:
    if not isinstance(value, Mapping):
        faults.append(FieldError(".".join(path), "must be an object"))
        return {}
    plain = {}
    for name, inner in value.items():
        here = (*path, str(name))
        field = kind.fields_by_name.get(str(name))
        if field is None:
            near = nearest(str(name), kind.fields_by_name)
            faults.append(FieldError(".".join(here), f"unknown field{near}"))
        elif len(here) > MAX_DEPTH:
            faults.append(FieldError(".".join(here), "too deeply nested"))
        elif inner is not None:
            plain[str(name)] = _field(inner, field, path=here, faults=faults)
    return plain


def _field(value: Any, field: Any, *, path: tuple[str, ...], faults: list[FieldError]) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return _string_map(value, path=path, faults=faults)
    if not field.is_repeated:
        return _single(value, field, path=path, faults=faults)
    if not isinstance(value, list | tuple):
        faults.append(FieldError(".".join(path), "must be a list"))
        return []
    head, last = path[:-1], path[-1]
    return [
        _single(item, field, path=(*head, f"{last}[{index}]"), faults=faults)
        for index, item in enumerate(value)
    ]


def _single(value: Any, field: Any, *, path: tuple[str, ...], faults: list[FieldError]) -> Any:
    kind = field.message_type
    if kind is not None and kind.file.package != "google.protobuf":
        return _message(value, kind, path=path, faults=faults)
    try:
        return judged(value, field)
    except Wrong as wrong:
        faults.append(FieldError(".".join(path), str(wrong)))
        return None


def _string_map(value: Any, *, path: tuple[str, ...], faults: list[FieldError]) -> dict[str, str]:
    if not isinstance(value, Mapping):
        faults.append(FieldError(".".join(path), "must be an object"))
        return {}
    plain = {}
    for key, inner in value.items():
        if isinstance(inner, str):
            plain[str(key)] = inner
        elif isinstance(inner, bool | int | float):
            plain[str(key)] = json.dumps(inner)
        else:
            fault = "must be text, a number or a boolean"
            faults.append(FieldError(".".join((*path, str(key))), fault))
    return plain
