"""What is said between the coordinator and its forecaster, and how it is framed."""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import Any

from coordinator.core.commands import Command
from coordinator.core.decision import Event
from coordinator.core.explain import Explanation
from coordinator.core.outlook import Change, Outlook
from coordinator.core.records import Kind, Record
from coordinator.core.settings import CoreSettings
from coordinator.core.whatif import Emptying

LENGTH = struct.Struct(">I")
FRAME_BYTES_MAX = 64 << 20
FOLLOWED = frozenset(
    {
        Kind.JOB,
        Kind.LEASE,
        Kind.NODE,
        Kind.QUEUE,
        Kind.USAGE,
        Kind.HISTORY,
        Kind.MIX,
        Kind.ROLLING_DRAIN,
    }
)
"""What decides when jobs start."""


@dataclass(frozen=True, slots=True)
class Load:
    """A part of the live records; the first one begins anew, with the core's settings."""

    records: tuple[Record, ...]
    settings: CoreSettings | None = None


@dataclass(frozen=True, slots=True)
class Feed:
    """What has changed since, in order; of reports those that tell of leases which nobody knows, or do
    so no more."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Explain:
    """Why does a job wait, when will it start, what would make it start sooner?"""

    job_id: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class Foresee:
    """When will the waiting jobs start?"""

    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """How are nodes emptied, or with a wish, how would they be?"""

    node_ids: tuple[str, ...]
    now_ms: int
    wish: Command | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulate:
    """What would some changes come to?"""

    changes: tuple[Change, ...]
    now_ms: int
    horizon_ms: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, with a number that its answer carries."""

    number: int
    question: Question


@dataclass(frozen=True, slots=True)
class Sooner:
    """A change of the job, and the wait in milliseconds with it."""

    change: str
    wait_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """The answer to Explain; waits in milliseconds, None where they are not known."""

    explanation: Explanation
    wait_p50_ms: int | None = None
    wait_p90_ms: int | None = None
    sooner: tuple[Sooner, ...] = ()
    after_job_ids: tuple[str, ...] = ()  # jobs with whose ends it starts
    age_ms: int = 0  # of the look ahead that the waits come from
    untried: int = 0  # changes that are not tried yet


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The answer to Foresee: when jobs will start, in milliseconds UTC, the median."""

    starts_ms: dict[str, int]


@dataclass(frozen=True, slots=True)
class Emptied:
    """The answer to Empty: as likely as not, and what is not exceeded in nine of ten cases."""

    likely: tuple[Emptying, ...]
    late: tuple[Emptying, ...]


@dataclass(frozen=True, slots=True)
class Simulated:
    """The answer to Simulate: what lies ahead without the changes, and with them."""

    before: Outlook
    after: Outlook


@dataclass(frozen=True, slots=True)
class Answer:
    """What an Ask came to; None where it could not be answered in time."""

    number: int
    found: Found | None


Question = Explain | Foresee | Empty | Simulate
Found = Explained | Foreseen | Emptied | Simulated
Message = Load | Feed | Ask


def frame(message: Any) -> bytes:
    """A message as bytes, its length first. Both ends are one program: pickle is safe between them."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body
