"""Protobuf messages into JSON values, compiled once for each message type.

Every field is printed under its own name: empty lists and maps as such, an unset message or
`optional` field as null. Fields that the protos call prose are cleaned. The values are those that
msgspec.json.encode takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.catalog import BadCatalog
from gateway.json_in import TIMESTAMP
from gateway.scalars import Convert, write_time, writer
from scaimind.service.sanitize import cleaned
from scaimind.v1 import options_pb2

Print = Callable[[Any], Any]


class JsonWriter:
    """Compiles message types; each once."""

    def __init__(self) -> None:
        self._printers: dict[str, Print] = {}

    def printer(self, message: Descriptor) -> Print:
        """The function that turns a message of this type into a JSON value.

        Raises:
            BadCatalog: a field has a type that has no JSON form here.
        """
        name = message.full_name
        known = self._printers.get(name)
        if known is None:
            if name == TIMESTAMP:
                known = write_time
            elif name.startswith("google.protobuf."):
                raise BadCatalog(f"{name} has no JSON form here")
            else:
                # Entered before it is compiled: a message may contain itself.
                self._printers[name] = lambda value: self._printers[name](value)
                known = self._compile(message)
            self._printers[name] = known
        return known

    def _compile(self, message: Descriptor) -> Print:
        blank = {field.name: _blank(field) for field in message.fields}
        plan = {field: (field.name, self._converter(field)) for field in message.fields}

        def print_message(value: Any) -> dict[str, Any]:
            # Only what is set costs anything; the rest is a copy of the blank form, whose empty
            # lists and maps are shared and never written to.
            printed = blank.copy()
            for field, item in value.ListFields():
                name, convert = plan[field]
                printed[name] = item if convert is None else convert(item)
            return printed

        return print_message

    def _converter(self, field: FieldDescriptor) -> Convert | None:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
            return _map(_key_writer(key), self._converter(value))
        convert = self.printer(entry) if entry is not None else writer(field)
        if field.GetOptions().Extensions[options_pb2.prose]:
            convert = cleaned
        if not field.is_repeated:
            return convert
        if convert is None:
            return list
        return lambda items: [convert(item) for item in items]


def _blank(field: FieldDescriptor) -> Any:
    """What is printed for a field that is not set."""
    if field.is_repeated:
        entry = field.message_type
        return {} if entry is not None and entry.GetOptions().map_entry else []
    if field.has_presence:
        return None
    convert = writer(field)
    return convert(field.default_value) if convert else field.default_value


def _map(convert_key: Convert | None, convert: Convert | None) -> Convert:
    if convert_key is None and convert is None:
        return dict
    if convert_key is None:
        assert convert is not None
        return lambda items: {key: convert(value) for key, value in items.items()}
    return lambda items: {
        convert_key(key): convert(value) if convert else value for key, value in items.items()
    }


def _key_writer(key: FieldDescriptor) -> Convert | None:
    if key.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return None
    if key.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return lambda value: "true" if value else "false"
    return str
