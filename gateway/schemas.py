"""JSON schemas of messages and enums, with the comments and bounds of the protos."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from buf.validate import validate_pb2
from gateway.catalog import Catalog

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
}
_NUMBERS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
_TEXT_BOUNDS = {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern"}
_NUMBER_BOUNDS = {
    "gte": "minimum",
    "gt": "exclusiveMinimum",
    "lte": "maximum",
    "lt": "exclusiveMaximum",
}
_LIST_BOUNDS = {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"}
_MAP_BOUNDS = {"min_pairs": "minProperties", "max_pairs": "maxProperties"}


class Schemas:
    """The schemas made so far, by name."""

    def __init__(self, catalog: Catalog) -> None:
        """Takes the catalog for its comments."""
        self.made: dict[str, Any] = {}
        self._catalog = catalog

    def reference(self, of: Descriptor | EnumDescriptor) -> dict[str, Any]:
        """A reference to the schema of a message or enum, which is made where it is not yet."""
        name = of.full_name
        if name == "google.protobuf.Timestamp":
            return {"type": "string", "format": "date-time"}
        if of.file.package:
            name = name.removeprefix(of.file.package + ".")
        if name not in self.made:
            self.made[name] = {}  # a message may contain itself
            self.made[name] = self._message(of) if isinstance(of, Descriptor) else self._enum(of)
        return {"$ref": f"#/components/schemas/{name}"}

    def required(self, message: Descriptor | None) -> list[str]:
        """Names of the fields that must be given."""
        fields = message.fields if message is not None else ()
        return [field.name for field in fields if _rules(field).required]

    def field(self, field: FieldDescriptor, *, nullable: bool = True) -> dict[str, Any]:
        """The schema of one field, with its comment."""
        rules, entry = _rules(field), field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            schema = self._map(entry, rules.map)
        elif field.is_repeated:
            items = self._single(field, rules.repeated.items)
            schema = {"type": "array", "items": items, **_bounds(rules.repeated, _LIST_BOUNDS)}
        else:
            schema = self._single(field, rules)
            if nullable and field.has_presence and not rules.required:
                schema = _or_null(schema)
        comment = self._catalog.comment(field.full_name)
        return {**schema, "description": comment} if comment else schema

    def _message(self, message: Descriptor) -> dict[str, Any]:
        schema: dict[str, Any] = {
            "type": "object",
            "description": self._catalog.comment(message.full_name),
            "properties": {field.name: self.field(field) for field in message.fields},
        }
        required = self.required(message)
        return {**schema, "required": required} if required else schema

    def _enum(self, enum: EnumDescriptor) -> dict[str, Any]:
        comments = {
            value.name: self._catalog.comment(f"{enum.full_name}.{value.name}")
            for value in enum.values
        }
        return {
            "type": "string",
            "description": self._catalog.comment(enum.full_name),
            "enum": list(comments),
            "x-enum-descriptions": comments,
        }

    def _map(self, entry: Descriptor, rules: Any) -> dict[str, Any]:
        value = entry.fields_by_name["value"]
        values = self._single(value, rules.values)
        if value.type == FieldDescriptor.TYPE_STRING:
            # Numbers and booleans are taken as well, and kept as their text.
            values = {**values, "type": ["string", "number", "boolean"]}
        key = self._single(entry.fields_by_name["key"], rules.keys)
        return {
            "type": "object",
            "additionalProperties": values,
            "propertyNames": {name: bound for name, bound in key.items() if name != "type"},
            **_bounds(rules, _MAP_BOUNDS),
        }

    def _single(self, field: FieldDescriptor, rules: Any) -> dict[str, Any]:
        kind = field.cpp_type
        if field.message_type is not None:
            return self.reference(field.message_type)
        if field.enum_type is not None:
            return self.reference(field.enum_type)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean"}
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return {"type": "string", **_bounds(rules.string, _TEXT_BOUNDS)}
        schema = {"type": "number"} if kind in _NUMBERS else {"type": "integer"}
        if kind in _INTEGERS:
            schema["format"] = _INTEGERS[kind]
        which = rules.WhichOneof("type")
        return schema | (_bounds(getattr(rules, which), _NUMBER_BOUNDS) if which else {})


def _rules(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[validate_pb2.field]


def _bounds(rules: Any, names: dict[str, str]) -> dict[str, Any]:
    return {there: getattr(rules, here) for here, there in names.items() if rules.HasField(here)}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}
