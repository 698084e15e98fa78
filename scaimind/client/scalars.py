"""Values of a body's fields, judged one by one, so that every fault has its field and says what would fit.

The rules are those of REST: no number for an enum, no text for a number (but for 64-bit integers).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_LONG = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_NUMBERS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


class Wrong(ValueError):
    """A value that does not fit its field; the text says what would."""


def judged(value: Any, field: FieldDescriptor) -> Any:
    """The value as protobuf's own JSON mapping takes it.

    Raises:
        Wrong: it does not fit.
    """
    kind = field.cpp_type
    if field.message_type is not None:
        return _time(value)
    if field.enum_type is not None:
        return _enum(value, field.enum_type)
    if kind in _RANGES:
        return _integer(value, *_RANGES[kind], long=kind in _LONG)
    if kind in _NUMBERS:
        return _number(value)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            raise Wrong("must be true or false")
        return value
    text = _text(value)
    return _bytes(text) if field.type == FieldDescriptor.TYPE_BYTES else text


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` where one of the known names is like this one, else nothing."""
    names = list(known)
    stem = name.lower().rstrip("s")
    found = get_close_matches(name, names, n=1) or [
        each for each in names if len(stem) > 2 and each.lower().startswith(stem)
    ]
    return f"; did you mean {found[0]}?" if found else ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float | date):
        raise Wrong("must be text; put it in quotes")
    raise Wrong("must be text")


def _bytes(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("must be base64") from None
    return text


def _integer(value: Any, low: int, high: int, *, long: bool) -> int:
    if long and isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong("must be an integer")
    if not low <= value <= high:
        raise Wrong(f"must be between {low} and {high}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        # YAML takes 1e-5 for text: it wants a point before the exponent.
        raise Wrong(f"must be a number{_as_number(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Wrong("must be a finite number")
    return number


def _as_number(value: Any) -> str:
    try:
        return f"; in YAML write {float(value)!r}" if isinstance(value, str) else ""
    except ValueError:
        return ""


def _enum(value: Any, enum: EnumDescriptor) -> str:
    names = [each.name for each in enum.values if each.number]
    known = ", ".join(names)
    if not isinstance(value, str):
        raise Wrong(f"must be one of {known}")
    if value not in names:
        near = nearest(value.upper(), names)
        raise Wrong(f"{value[:100]!r} is none of {known}{near}")
    return value


def _time(value: Any) -> str:
    """RFC 3339; a time without a zone is taken for UTC."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    try:
        if not isinstance(value, str):
            raise ValueError
        Timestamp().FromJsonString(value)
    except ValueError:
        raise Wrong("must be a time such as 2026-01-31T12:00:00Z") from None
    return value
