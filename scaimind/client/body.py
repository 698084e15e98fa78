"""From a dict, as in a job file or a REST body, to the request message that it means.

The same rules as over REST: snake_case names, enums by name, times in RFC 3339, string maps that
also take numbers and booleans. Every fault is named with the path of its field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from scaimind.client.errors import FieldError, InvalidArgument

M = TypeVar("M", bound=Message)

MAX_DEPTH = 32
_STEP = re.compile(r"^Failed to parse (\w+) field: ")
_PLACE = re.compile(r" at \w+(\.\w+)*\.*$")


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
            faults.append(_fault(str(error)))
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
            faults.append(FieldError(".".join(here), "unknown field"))
        elif len(here) > MAX_DEPTH:
            faults.append(FieldError(".".join(here), "too deeply nested"))
        elif inner is not None:
            plain[str(name)] = _field(inner, field, path=here, faults=faults)
    return plain


def _field(value: Any, field: Any, *, path: tuple[str, ...], faults: list[FieldError]) -> Any:
    if isinstance(value, datetime):
        return _time(value)
    kind = field.message_type
    if kind is None or kind.file.package == "google.protobuf":
        return value
    if kind.GetOptions().map_entry:
        return _string_map(value, path=path, faults=faults)
    if not field.is_repeated:
        return _message(value, kind, path=path, faults=faults)
    if not isinstance(value, list | tuple):
        faults.append(FieldError(".".join(path), "must be a list"))
        return []
    head, last = path[:-1], path[-1]
    return [
        _message(item, kind, path=(*head, f"{last}[{index}]"), faults=faults)
        for index, item in enumerate(value)
    ]


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


def _time(value: datetime) -> str:
    """RFC 3339; a time without a zone is taken for UTC."""
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _fault(text: str) -> FieldError:
    """The field and the fault in protobuf's own words."""
    path = []
    while step := _STEP.match(text):
        path.append(step.group(1))
        text = text[step.end() :]
    return FieldError(".".join(path), _PLACE.sub("", text.rstrip(".")))
