"""The bounds that the protos set, checked before a request leaves the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import protovalidate
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.catalog import BadCatalog
from gateway.faults import MAX_FAULTS, shorten
from gateway.scalars import enum_names
from scaimind.service.patterns import told

_validator = protovalidate.Validator()


def prepare(message_class: type[Any]) -> None:
    """Compiles the rules of a message type, so that bad ones are found at start.

    Raises:
        BadCatalog: a rule cannot be compiled.
    """
    try:
        _validator.collect_violations(message_class())
    except protovalidate.CompilationError as error:
        raise BadCatalog(f"{message_class.DESCRIPTOR.full_name}: {error}") from error


def violations(message: Any, *, at_most: int = MAX_FAULTS) -> Iterator[tuple[str, str]]:
    """Path and sentence for each bound that the message breaks; at most 100. Only one is looked for
    where only one is wanted: each takes some microseconds, and there may be one for every second byte."""
    faults = _validator.collect_violations(message, fail_fast=at_most == 1)
    for found in faults[:at_most]:
        violation = found.proto
        elements = violation.field.elements if violation.field else []
        path = shorten(".".join(map(_element, elements)))
        text = ""
        if violation.rule_id.startswith("enum."):
            text = _enum_text(message.DESCRIPTOR, elements)
        about = "key " if violation.for_key else ""
        yield path, text or f"{about}{told(found)}"


def _element(element: Any) -> str:
    if element.subscript is None:
        return str(element.field_name)
    value = element.subscript.value
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return f"{element.field_name}[{text}]"


def _enum_text(message: Descriptor | None, elements: Any) -> str:
    """Names what an enum field takes; protovalidate would tell numbers."""
    field: FieldDescriptor | None = None
    for element in elements:
        field = message.fields_by_name.get(element.field_name) if message else None
        message = field.message_type if field else None
    if field is None or field.enum_type is None:
        return ""
    return f"must be one of {enum_names(field)}"
