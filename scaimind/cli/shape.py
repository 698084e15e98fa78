"""Messages as plain values, in the same shape as the `data` of a REST answer.

snake_case names, enums by name, times in RFC 3339, null for what is not set, 64-bit integers as
numbers where a double holds them exactly, else as text.
"""

import base64
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message

EXACT = 2**53


def shape(message: "Message") -> dict[str, Any]:
    """The message as what `json.dumps` takes; every field is there."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def _field(message: "Message", field: Any) -> Any:
    value = getattr(message, field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        inner = kind.fields_by_name["value"]
        return {str(key): _value(item, inner) for key, item in value.items()}
    if field.is_repeated:
        return [_value(item, field) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(value, field)


def _value(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        is_time = field.message_type.full_name == "google.protobuf.Timestamp"
        return value.ToJsonString() if is_time else shape(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > EXACT:
        return str(value)
    return value
