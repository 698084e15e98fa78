"""Records to bytes and back, for every store.

The form is JSON, `[version, record]`, made from the dataclasses themselves, without the fields that are
as by default (`form.py`): a field that is new must have a default, and then older bytes read well; a field
that is not known is passed over, so that a program may be rolled back. Neither raises the version. What
changes the meaning of a field does, and so does another default: it adds a step here that turns the older
tree into the newer one, and a golden file beside the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from coordinator.core.records import (
    Documents,
    Entry,
    History,
    Job,
    Key,
    Kind,
    Lease,
    Mix,
    Node,
    Queue,
    Record,
    Request,
    RollingDrain,
    Ruling,
    Usage,
)
from coordinator.store.form import form_of

Tree = dict[str, Any]
Step = Callable[[Tree], Tree]

# Steps of a kind, oldest first. Its version is one more than there are. A Request holds a Job and a
# Node: a step of theirs is one of Request too, wrapped by `inside`.
STEPS: Mapping[Kind, tuple[Step, ...]] = {
    Kind.JOB: (),
    Kind.LEASE: (),
    Kind.NODE: (),
    Kind.KEY: (),
    Kind.REQUEST: (),
    Kind.QUEUE: (),
    Kind.HISTORY: (),
    Kind.MIX: (),
    Kind.USAGE: (),
    Kind.ENTRY: (),
    Kind.ROLLING_DRAIN: (),
    Kind.RULING: (),
}

TYPES: Mapping[Kind, type[Record]] = {
    Kind.JOB: Job,
    Kind.LEASE: Lease,
    Kind.NODE: Node,
    Kind.KEY: Key,
    Kind.REQUEST: Request,
    Kind.QUEUE: Queue,
    Kind.HISTORY: History,
    Kind.MIX: Mix,
    Kind.USAGE: Usage,
    Kind.ENTRY: Entry,
    Kind.ROLLING_DRAIN: RollingDrain,
    Kind.RULING: Ruling,
}


class CodecError(Exception):
    """Bytes that are no record of this kind, or of a version that is not known here."""


def inside(field: str, step: Step) -> Step:
    """A step for the record that stands in a field of another; None stays."""

    def lifted(tree: Tree) -> Tree:
        inner = tree.get(field)
        return tree if inner is None else {**tree, field: step(inner)}

    return lifted


class Codec:
    """Versioned bytes of one kind.

    Args:
        kind: which records.
        steps: from each older version to the next; STEPS by default.
    """

    def __init__(self, kind: Kind, steps: tuple[Step, ...] | None = None) -> None:
        self._kind = kind
        self._steps = STEPS[kind] if steps is None else steps
        self.version = len(self._steps) + 1
        self._prefix = b"[%d," % self.version
        made: Any = TYPES[kind]
        self._form = form_of(made)
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(tuple[int, self._form.struct])  # type: ignore[name-defined]

    def encode(self, record: Record) -> bytes:
        """The record as JSON in UTF-8."""
        return self._encoder.encode((self.version, self._form.thin(record)))

    def decode(self, body: bytes) -> Any:
        """The record.

        Raises:
            CodecError: it cannot be read here.
        """
        try:
            if body.startswith(self._prefix):
                return self._form.full(self._decoder.decode(body)[1])
            return self._decode_older(body)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise CodecError(f"a {self._kind} cannot be read: {error}") from error

    def _decode_older(self, body: bytes) -> Any:
        version, tree = msgspec.json.decode(body, type=tuple[int, Tree])
        if not 1 <= version <= self.version:
            raise CodecError(
                f"a {self._kind} of version {version}; known here are 1 to {self.version}: "
                "upgrade this program"
            )
        for step in self._steps[version - 1 :]:
            tree = step(tree)
        return self._form.full(msgspec.convert(tree, self._form.struct))


CODECS: Mapping[Kind, Codec] = {kind: Codec(kind) for kind in TYPES}


def encode(record: Record) -> bytes:
    """Bytes of any record but Documents, which are bytes already."""
    assert not isinstance(record, Documents)
    return CODECS[record.kind].encode(record)


def decode(kind: Kind, body: bytes) -> Any:
    """A record of a kind. Raises CodecError."""
    return CODECS[kind].decode(body)


def decode_job(body: bytes) -> Job:
    """A job. Raises CodecError."""
    job: Job = CODECS[Kind.JOB].decode(body)
    return job


def decode_jobs(bodies: bytes) -> list[Job]:
    """Jobs from a JSON array of their bytes. Raises CodecError."""
    try:
        parts = _PARTS.decode(bodies)
    except msgspec.DecodeError as error:
        raise CodecError(f"jobs cannot be read: {error}") from error
    codec = CODECS[Kind.JOB]
    return [codec.decode(bytes(part)) for part in parts]


_PARTS = msgspec.json.Decoder(list[msgspec.Raw])
