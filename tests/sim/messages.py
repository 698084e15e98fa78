"""What agents and the simulated coordinator say to each other: the protocol, without its encoding."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.commands import SyncNode
from coordinator.core.records import Lease

Revision = tuple[int, tuple[tuple[str, int, str], ...]]


@dataclass(frozen=True, slots=True)
class Call:
    """One Sync call of an agent."""

    number: int  # names the call for ever; an answer to another call is dropped
    report: SyncNode
    seen: Revision | None
    hold_ms: int


@dataclass(frozen=True, slots=True)
class Desired:
    """One lease of the desired list. The grant goes along while the agent has not reported it."""

    lease_id: str
    epoch: int
    run: bool
    grace_ms: int
    spec: Lease | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The desired list. `commit` is how many commits lay behind it."""

    call: int
    revision: Revision
    leases: tuple[Desired, ...]
    commit: int
    superseded: bool = False
