"""Messages of a stream as text: many server-sent events in few, large pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.catalog import BadCatalog
from gateway.json_out import JsonWriter

LAST_EVENT = "end"
EVENTS_PER_WRITE = 512


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events in the form in which they are sent, at least one."""

    text: bytes
    ends: tuple[tuple[str, int], ...]
    """The id of each event, and where in the text it ends."""
    last: bool = False
    """Whether the stream ends with it."""

    @property
    def count(self) -> int:
        """How many events there are."""
        return len(self.ends)

    @property
    def last_id(self) -> str:
        """The id of the last event; empty for none."""
        return self.ends[-1][0] if self.ends else ""

    def after(self, offset: int) -> Chunk:
        """The events behind an offset, which is the end of one."""
        ends = tuple((name, end - offset) for name, end in self.ends if end > offset)
        return Chunk(self.text[offset:], ends, self.last)

    def __add__(self, other: Chunk) -> Chunk:
        """This one and the next in one piece."""
        behind = tuple((name, end + len(self.text)) for name, end in other.ends)
        return Chunk(self.text + other.text, self.ends + behind, other.last)


PrintBatch = Callable[[Any], Iterator[Chunk]]


def batch_printer(response: Descriptor, writer: JsonWriter) -> PrintBatch:
    """Compiles the printer of a stream's messages: `repeated … events`, each with a string `id`
    and one oneof of messages, whose set field names the event.

    Raises:
        BadCatalog: the message has another shape.
    """
    event = _event_type(response)
    oneof = event.oneofs[0].name
    printers: dict[str, tuple[bytes, Callable[[Any], Any]]] = {}
    for field in event.oneofs[0].fields:
        if field.message_type is None:
            raise BadCatalog(f"{field.full_name}: an event must be a message")
        head = b"\nevent: " + field.name.encode() + b"\ndata: "
        printers[field.name] = (head, writer.printer(field.message_type))
    encode = msgspec.json.Encoder().encode

    def print_batch(message: Any) -> Iterator[Chunk]:
        parts: list[bytes] = []
        ends: list[tuple[str, int]] = []
        size = 0
        for item in message.events:
            name = item.WhichOneof(oneof)
            if name is None:  # an event that only a newer coordinator knows
                continue
            head, printer = printers[name]
            # Ids are made without line ends; a broken one must not break the framing.
            identifier = item.id.replace("\n", "").replace("\r", "")
            text = b"id: %b%b%b\n\n" % (
                identifier.encode(),
                head,
                encode(printer(getattr(item, name))),
            )
            parts.append(text)
            size += len(text)
            ends.append((identifier, size))
            if name == LAST_EVENT:
                yield Chunk(b"".join(parts), tuple(ends), last=True)
                return
            if len(parts) >= EVENTS_PER_WRITE:
                yield Chunk(b"".join(parts), tuple(ends))
                parts, ends, size = [], [], 0
        if parts:
            yield Chunk(b"".join(parts), tuple(ends))

    return print_batch


def _event_type(response: Descriptor) -> Descriptor:
    events = response.fields_by_name.get("events")
    event = events.message_type if events is not None and events.is_repeated else None
    identifier = event.fields_by_name.get("id") if event is not None else None
    if (
        event is None
        or identifier is None
        or identifier.type != FieldDescriptor.TYPE_STRING
        or len(event.oneofs) != 1
    ):
        raise BadCatalog(f"{response.full_name} is not a batch of events")
    return event
