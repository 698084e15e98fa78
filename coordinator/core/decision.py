"""What comes out of the core: a reply or a refusal, the facts that changed, hints to act.

An event carries the whole new record, so applying it decides nothing and storing it is an upsert:
the same events move the live state, the store and whoever watches.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Key, Kind, Node, Outcome, Queue, Record, RollingDrain


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A record is new or has a new value. `cause` says why, `actor` who: a user, a node or "core"."""

    record: Record
    cause: Reason
    actor: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """A record leaves the live state: a final job becomes history, anything else is deleted."""

    kind: Kind
    id: str
    at_ms: int
    actor: str = "core"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A node was heard. Not stored: after a restart everyone has been heard just now.

    `renewed`: it was not; the coordinator could not have heard it, so its silence begins anew.
    `unknown`: leases of which it says that they have not ended, and that nobody here knows.
    """

    node_id: str
    incarnation: str
    sequence: int
    at_ms: int
    renewed: bool = False
    unknown: tuple[str, ...] = ()


Event = Changed | Retired | Heard


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeAgent:
    """What is desired of a node has changed; its held call may be answered."""

    node_id: str


Effect = WakeAgent


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A refusal. It changes nothing. `field` names the request's field at fault, where one is."""

    reason: Reason
    message: str
    field: str = ""
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a command; `replayed` when it is the remembered one."""

    job: Job | None = None
    node: Node | None = None
    key: Key | None = None
    queue: Queue | None = None
    rolling: RollingDrain | None = None
    salt: str = ""  # of a key that was made
    outcomes: tuple[Outcome, ...] = ()  # of a batch, in its order; of a drain, what runs there
    replayed: bool = False
    superseded: bool = False  # SyncNode: a newer agent has taken the node over
    stale: bool = False  # SyncNode: a late report; nothing was taken from it


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """All that one step returns. `reply` is None where nobody asked (a scheduling pass)."""

    reply: Reply | Rejected | None = None
    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()
    # hints too: (job, nodes) where a job that waits will fit first, as far as is to be seen
    foreseen: tuple[tuple[str, tuple[str, ...]], ...] = ()
