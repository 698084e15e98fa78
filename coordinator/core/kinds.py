"""What kinds of records there are."""

from __future__ import annotations

from enum import StrEnum

Pairs = tuple[tuple[str, str], ...]  # a string map, sorted by key


class Kind(StrEnum):
    """Kinds of records; the value is what a store writes."""

    JOB = "job"
    LEASE = "lease"
    NODE = "node"
    KEY = "key"
    REQUEST = "request"
    DOCUMENT = "document"
    QUEUE = "queue"
    HISTORY = "history"
    MIX = "mix"
    USAGE = "usage"
    ROLLING_DRAIN = "rolling_drain"
    RULING = "ruling"
    ENTRY = "entry"
