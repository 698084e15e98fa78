"""JSON into protobuf messages, compiled once for each message type.

Stricter than protobuf's own mapping: an unknown field, a number for an enum, a wrong type is a
fault, and all faults of a body are found in one pass. Maps of strings also take numbers and
booleans and keep their JSON text. Of two equal names in one object the last one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.catalog import BadCatalog
from gateway.faults import Place
from gateway.scalars import (
    Convert,
    NumberText,
    Refused,
    direct,
    json_text,
    read_time,
    reader,
    text_value,
)

Fill = Callable[[Any, Any, Place], None]
"""Fills a message from a parsed JSON value: (message, value, place of the message)."""

Setter = Fill
"""Sets one field of a message from a parsed JSON value: (message, value, place of the message)."""

TIMESTAMP = "google.protobuf.Timestamp"
MAX_DEPTH = 64

_decoder = msgspec.json.Decoder(float_hook=NumberText)


class Malformed(ValueError):
    """The text is not JSON."""


def decode(body: bytes) -> Any:
    """Parses JSON; numbers with a fraction or an exponent become NumberText.

    Raises:
        Malformed: it is not JSON, or nested too deeply.
    """
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise Malformed(str(error).removeprefix("JSON is malformed: ")) from None
    except UnicodeDecodeError:
        raise Malformed("the text is not UTF-8") from None
    except RecursionError:
        raise Malformed("nested too deeply") from None


class JsonReader:
    """Compiles message types; each once."""

    def __init__(self) -> None:
        self._fields: dict[str, dict[str, Setter]] = {}

    def fields(self, message: Descriptor) -> dict[str, Setter]:
        """The setters of a message by field name.

        Raises:
            BadCatalog: a field has a type that has no JSON form here.
        """
        known = self._fields.get(message.full_name)
        if known is None:
            # Entered before it is filled: a message may contain itself.
            known = self._fields[message.full_name] = {}
            known.update((field.name, self._setter(field)) for field in message.fields)
        return known

    def filler(self, message: Descriptor) -> Fill:
        """The function that fills a message of this type from a JSON value."""
        if message.full_name == TIMESTAMP:
            return _fill_time
        if message.full_name.startswith("google.protobuf."):
            raise BadCatalog(f"{message.full_name} has no JSON form here")
        return filler(self.fields(message))

    def _setter(self, field: FieldDescriptor) -> Setter:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
            if value.message_type is not None:
                return _map_of_messages(
                    field.name, _key_reader(key), fill=self.filler(value.message_type)
                )
            text = value.type == FieldDescriptor.TYPE_STRING
            convert = json_text if text else reader(value)
            return _map_of_scalars(
                field.name, _key_reader(key), convert=convert, direct=direct(value)
            )
        if entry is not None:
            fill = self.filler(entry)
            setter = _list_of_messages if field.is_repeated else _message
            made = setter(field.name, fill)
        else:
            scalar = _list_of_scalars if field.is_repeated else _scalar
            made = scalar(field.name, reader(field), direct=direct(field))
        oneof = field.containing_oneof
        # An `optional` field is a oneof of its own to the descriptors, and can never be given twice.
        return made if oneof is None or len(oneof.fields) < 2 else _once(oneof.name, made)


def filler(setters: Mapping[str, Setter]) -> Fill:
    """The function that fills the message whose fields have these setters."""

    def fill(target: Any, value: Any, place: Place) -> None:
        if type(value) is not dict:
            place.fault_here("must be an object")
            return
        if place.depth > MAX_DEPTH:
            place.fault_here("is nested too deeply")
            return
        for key, item in value.items():
            setter = setters.get(key)
            if setter is None:
                place.fault(key, "unknown field")
            elif item is not None:
                setter(target, item, place)

    return fill


def _scalar(name: str, convert: Convert, *, direct: type | None) -> Setter:
    def set_scalar(target: Any, value: Any, place: Place) -> None:
        try:
            # Most values are of the one type that needs no judging, and a call costs.
            setattr(target, name, value if type(value) is direct else convert(value))
        except Refused as refused:
            place.fault(name, str(refused))

    return set_scalar


def _message(name: str, fill: Fill) -> Setter:
    def set_message(target: Any, value: Any, place: Place) -> None:
        child = getattr(target, name)
        child.SetInParent()
        fill(child, value, place.inside(name))

    return set_message


def _list_of_scalars(name: str, convert: Convert, *, direct: type | None) -> Setter:
    def set_list(target: Any, value: Any, place: Place) -> None:
        if type(value) is not list:
            place.fault(name, "must be a list")
            return
        append = getattr(target, name).append
        for index, item in enumerate(value):
            try:
                append(item if type(item) is direct else convert(item))
            except Refused as refused:
                place.fault(f"{name}[{index}]", str(refused))

    return set_list


def _list_of_messages(name: str, fill: Fill) -> Setter:
    def set_list(target: Any, value: Any, place: Place) -> None:
        if type(value) is not list:
            place.fault(name, "must be a list")
            return
        add = getattr(target, name).add
        for index, item in enumerate(value):
            fill(add(), item, place.inside(f"{name}[{index}]"))

    return set_list


def _map_of_scalars(
    name: str, convert_key: Convert, *, convert: Convert, direct: type | None
) -> Setter:
    def set_map(target: Any, value: Any, place: Place) -> None:
        if type(value) is not dict:
            place.fault(name, "must be an object")
            return
        kept = {}
        for key, item in value.items():
            try:
                kept[convert_key(key)] = item if type(item) is direct else convert(item)
            except Refused as refused:
                place.fault(f'{name}["{key}"]', str(refused))
        getattr(target, name).update(kept)

    return set_map


def _map_of_messages(name: str, convert_key: Convert, *, fill: Fill) -> Setter:
    def set_map(target: Any, value: Any, place: Place) -> None:
        if type(value) is not dict:
            place.fault(name, "must be an object")
            return
        children = getattr(target, name)
        for key, item in value.items():
            step = f'{name}["{key}"]'
            try:
                fill(children[convert_key(key)], item, place.inside(step))
            except Refused as refused:
                place.fault(step, str(refused))

    return set_map


def _key_reader(key: FieldDescriptor) -> Convert:
    if key.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return str  # JSON has no other keys
    convert, text = reader(key), text_value(key)
    return lambda name: convert(text(name))


def _once(oneof: str, setter: Setter) -> Setter:
    def set_once(target: Any, value: Any, place: Place) -> None:
        other = target.WhichOneof(oneof)
        if other is not None:
            place.fault(other, f"only one field of {oneof} may be given")
        setter(target, value, place)

    return set_once


def _fill_time(target: Any, value: Any, place: Place) -> None:
    try:
        target.seconds, target.nanos = read_time(value)
    except Refused as refused:
        place.fault_here(str(refused))
