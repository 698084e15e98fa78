"""JSON schemas of messages and enums, with the comments and bounds of the protos.

What is asked and what is answered differ: a request takes `null` for a field that it leaves out, names
what must be there, and refuses what is not described; an answer has every field, and may have new ones.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from buf.validate import validate_pb2
from gateway.catalog import Catalog
from gateway.validation import violations

TIMESTAMP = "google.protobuf.Timestamp"
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
    """The schemas of one side, requests or answers, made so far by name."""

    def __init__(
        self, catalog: Catalog, made: dict[str, Any], *, asked: bool, both: Container[str] = ()
    ) -> None:
        """Takes the catalog for its comments, and `made` to put schemas into; `asked` for requests.

        What a request holds of the messages in `both` has `Input` behind its name.
        """
        self.made = made
        self._catalog, self._asked, self._both = catalog, asked, both

    def reference(self, of: Descriptor | EnumDescriptor) -> dict[str, Any]:
        """A reference to the schema of a message or enum, which is made where it is not yet."""
        name = of.full_name
        if name == TIMESTAMP:
            return {"type": "string", "format": "date-time"}
        short = name.removeprefix(of.file.package + ".") if of.file.package else name
        if self._asked and isinstance(of, Descriptor) and name in self._both:
            short += "Input"
        if short not in self.made:
            self.made[short] = {}  # a message may contain itself
            self.made[short] = self._message(of) if isinstance(of, Descriptor) else self._enum(of)
        return {"$ref": f"#/components/schemas/{short}"}

    def comment(self, full_name: str) -> str:
        """The comment on an element of the protos; empty for none."""
        return self._catalog.comment(full_name)

    def body(self, of: Descriptor, name: str, *, without: Container[str]) -> dict[str, Any]:
        """A reference to the schema, made under `name`, of a body that fills a message but for the
        fields that other parts of the request fill."""
        if not any(field.name in without for field in of.fields):
            return self.reference(of)
        self.made[name] = self._message(of, without=without)
        return {"$ref": f"#/components/schemas/{name}"}

    def required(self, message: Descriptor) -> list[str]:
        """Names of the fields that a request must give: those that an empty message lacks."""
        lacking = {path for path, _ in violations(GetMessageClass(message)())}
        return [field.name for field in message.fields if field.name in lacking]

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
        if nullable and (self._asked or field.has_presence):
            schema = _or_null(schema)
        comment = self._catalog.comment(field.full_name)
        return {**schema, "description": comment} if comment else schema

    def _message(self, message: Descriptor, *, without: Container[str] = ()) -> dict[str, Any]:
        fields = [field for field in message.fields if field.name not in without]
        needed = self.required(message) if self._asked else [field.name for field in fields]
        needed = [name for name in needed if name not in without]
        schema: dict[str, Any] = {
            "type": "object",
            "description": self._catalog.comment(message.full_name),
            "properties": {
                field.name: self.field(field, nullable=not self._asked or field.name not in needed)
                for field in fields
            },
        }
        if needed:
            schema["required"] = needed
        if self._asked:
            schema["additionalProperties"] = False
        return schema

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
        if self._asked and value.type == FieldDescriptor.TYPE_STRING:
            # Numbers and booleans are taken as well, and kept as their text.
            values = {**values, "type": ["string", "number", "boolean"]}
        if not self._asked and value.cpp_type in _NUMBERS:
            # Maps hold what was measured, which may be no number.
            values = {"anyOf": [values, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
        key = self._single(entry.fields_by_name["key"], rules.keys)
        return {
            "type": "object",
            "additionalProperties": values,
            "propertyNames": {name: bound for name, bound in key.items() if name != "type"},
            **_bounds(rules, _MAP_BOUNDS),
        }

    def _choice(self, enum: EnumDescriptor, rules: Any) -> dict[str, Any]:
        """An enum, with the values that a field takes of it where those are not all."""
        only, never = getattr(rules, "in"), rules.not_in
        if not (self._asked and (only or never)):
            return self.reference(enum)
        numbers = {number for number in only or enum.values_by_number if number not in never}
        names = [value.name for value in enum.values if value.number in numbers]
        return {**self.reference(enum), "enum": names}

    def _single(self, field: FieldDescriptor, rules: Any) -> dict[str, Any]:
        kind = field.cpp_type
        if field.message_type is not None:
            return self.reference(field.message_type)
        if field.enum_type is not None:
            return self._choice(field.enum_type, rules.enum)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean"}
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        if kind == FieldDescriptor.CPPTYPE_STRING:
            only = list(getattr(rules.string, "in"))
            return {
                "type": "string",
                **_bounds(rules.string, _TEXT_BOUNDS),
                **({"enum": only} if only else {}),
            }
        schema = {"type": "number"} if kind in _NUMBERS else {"type": "integer"}
        if kind in _INTEGERS:
            schema["format"] = _INTEGERS[kind]
        which = rules.WhichOneof("type")
        return schema | (_bounds(getattr(rules, which), _NUMBER_BOUNDS) if which else {})


def reached(messages: Iterable[Descriptor]) -> set[str]:
    """Full names of these messages and of all that they hold."""
    known: dict[str, Descriptor] = {}
    queue = list(messages)
    while queue:
        message = queue.pop()
        if message.full_name not in known:
            known[message.full_name] = message
            queue += [field.message_type for field in message.fields if field.message_type]
    return set(known)


def _rules(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[validate_pb2.field]


def _bounds(rules: Any, names: dict[str, str]) -> dict[str, Any]:
    return {there: getattr(rules, here) for here, there in names.items() if rules.HasField(here)}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}
