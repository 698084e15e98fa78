"""JSON values of protobuf's scalar types, both ways, and RFC 3339 times.

Inwards every converter takes what the JSON parser made and returns what protobuf takes, or raises
Refused with a sentence for the caller. Outwards the printers return what the JSON writer takes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from buf.validate import validate_pb2
from gateway.faults import shorten

Convert = Callable[[Any], Any]

EXACT = 2**53
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
LONG = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_INTEGER_TEXT = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_NUMBER_TEXT = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-5][0-9]))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Refused(ValueError):
    """A value that does not fit its field; the text says what would."""


class NumberText(str):
    """The JSON text of a number with a fraction or an exponent."""

    __slots__ = ()


def reader(field: FieldDescriptor) -> Convert:
    """The converter of one value of a scalar field.

    Raises:
        TypeError: the field is a message.
    """
    kind = field.cpp_type
    if kind in _INTEGERS:
        return _integer(*_INTEGERS[kind], text_allowed=kind in LONG)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _enum(field)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _bytes if field.type == FieldDescriptor.TYPE_BYTES else _string
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return _boolean
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _number
    raise TypeError(f"{field.full_name} is not a scalar")


def direct(field: FieldDescriptor) -> type | None:
    """The type of JSON values that a scalar field takes as they are; None where all are judged."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return str
    return bool if field.type == FieldDescriptor.TYPE_BOOL else None


def text_value(field: FieldDescriptor) -> Callable[[str], Any]:
    """Turns text of a path or query into the JSON value that stands for it in a body.

    Text that stands for none stays text, which the converter then refuses.
    """
    kind = field.cpp_type
    if kind in _INTEGERS:
        return lambda text: int(text) if _INTEGER_TEXT.fullmatch(text) else text
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return lambda text: NumberText(text) if _NUMBER_TEXT.fullmatch(text) else text
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return lambda text: _BOOLEANS.get(text.lower(), text)
    return lambda text: text


def json_text(value: Any) -> str:
    """The text that a map of strings keeps of a string, number or boolean."""
    kind = type(value)
    if kind is str:
        return _string(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is NumberText:
        return str(value)
    raise Refused("must be a string, a number or a boolean")


def _string(value: Any) -> str:
    # Neither the JSON parser nor the query's lets a lone surrogate through.
    if type(value) is not str:
        raise Refused("must be a string")
    return value


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise Refused("must be true or false")


def _integer(low: int, high: int, *, text_allowed: bool) -> Convert:
    def convert(value: Any) -> int:
        if type(value) is not int:
            value = _whole(value, text_allowed=text_allowed)
        if low <= value <= high:
            return int(value)
        raise Refused(f"must be between {low} and {high}")

    return convert


def _whole(value: Any, *, text_allowed: bool) -> int:
    if text_allowed and type(value) is str and _INTEGER_TEXT.fullmatch(value):
        return int(value)
    if type(value) is NumberText:
        number = float(value)
        if number.is_integer() and abs(number) <= EXACT:
            return int(number)
    raise Refused("must be an integer")


def _number(value: Any) -> float:
    if type(value) is int or type(value) is NumberText:
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        if isfinite(number):
            return number
        raise Refused("must be a finite number")
    raise Refused("must be a number")


def enum_names(field: FieldDescriptor) -> str:
    """The values that an enum field takes, for a sentence."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    only = getattr(rules.repeated.items.enum if field.is_repeated else rules.enum, "in")
    assert field.enum_type is not None
    values = [value for value in field.enum_type.values if value.number]
    return ", ".join(value.name for value in values if not only or value.number in only)


def _enum(field: FieldDescriptor) -> Convert:
    assert field.enum_type is not None
    numbers = {value.name: value.number for value in field.enum_type.values}
    known = enum_names(field)

    def convert(value: Any) -> int:
        if type(value) is not str:
            raise Refused(f"must be one of the names {known}")
        number = numbers.get(value)
        if number is None:
            raise Refused(f"unknown value '{shorten(value)}'; must be one of {known}")
        return number

    return convert


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_string(value), validate=True)
    except binascii.Error:
        raise Refused("must be base64") from None


def read_time(value: Any) -> tuple[int, int]:
    """Seconds since 1970 and nanoseconds of an RFC 3339 text.

    Raises:
        Refused: it is none, or outside the years 1 to 9999.
    """
    found = _TIME.fullmatch(value) if type(value) is str else None
    if not found:
        raise Refused("must be a time such as 2026-01-31T12:00:00Z")
    day, clock, fraction, sign, hours, minutes = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}+00:00")
        if sign:
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except (ValueError, OverflowError):
        raise Refused("is not a time that exists") from None
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    return seconds, int((fraction or "").ljust(9, "0"))


@lru_cache(maxsize=8192)
def _second_text(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")


def write_time(stamp: Any) -> str:
    """RFC 3339 text in UTC of a Timestamp, with 0, 3, 6 or 9 digits after the second."""
    return _time_text(stamp.seconds, stamp.nanos)


@lru_cache(maxsize=8192)
def _time_text(seconds: int, nanos: int) -> str:
    text = _second_text(seconds)
    if not nanos:
        return text + "Z"
    if nanos % 1_000_000 == 0:
        return f"{text}.{nanos // 1_000_000:03d}Z"
    if nanos % 1_000 == 0:
        return f"{text}.{nanos // 1_000:06d}Z"
    return f"{text}.{nanos:09d}Z"


def writer(field: FieldDescriptor) -> Convert | None:
    """The printer of one value of a scalar field; None where it is printed as it is."""
    kind = field.cpp_type
    if kind in LONG:
        return _write_long
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        names = {value.number: value.name for value in field.enum_type.values}
        # A value that only a newer coordinator knows is printed as its number.
        return lambda number: names.get(number, number)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _write_number
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    return None


def _write_long(value: int) -> int | str:
    return value if -EXACT <= value <= EXACT else str(value)


def _write_number(value: float) -> float | str:
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
