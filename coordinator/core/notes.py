"""Records beside those of jobs, leases, nodes and queues: what an admin has begun, and why something was done.

The rules of records.py hold here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coordinator.core.kinds import Kind, Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingDrain:
    """An admin's wish that nodes be drained a few at a time, by name; see rolling.py.

    Those that it has out carry its id in their Drain. It takes nodes that had joined when it began.
    """

    kind: ClassVar[Kind] = Kind.ROLLING_DRAIN

    drain_id: str
    selector: Pairs = ()  # labels of which a node carries all; () is every node
    max_unavailable: int = 1
    until_enabled: bool = False  # a node is out until it is enabled again, else until it is empty
    force: bool = False
    move: bool = False
    node_deadline_ms: int = 0  # from when a node is taken until it is by force; 0 is none
    reason: str = ""
    actor: str = ""
    requested_at_ms: int = 0
    cursor: str = ""  # the newest node that was taken; "" for none yet
    taken_count: int = 0
    ended_at_ms: int = 0  # it takes no more nodes; 0 while it does
    cancelled: bool = False
    version: int = 1

    @property
    def id(self) -> str:
        return self.drain_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """An attempt that might have given way."""

    job_id: str
    attempt: int
    rule: str  # a name of replay.Rule: why it might
    loss_ms: int  # device-milliseconds that it would lose
    goes: bool  # whether it was preempted
    awaited_ms: int = 0  # until when its next checkpoint, which is near, is awaited; 0 is not
    beside: bool = False  # it runs nowhere on the nodes that were found first, so it stays first
    instead: tuple[int, ...] | None = None  # who had gone, if not it: places in `considered`


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """Why some attempts had to give their devices up, as it was decided; see ruling.py."""

    kind: ClassVar[Kind] = Kind.RULING

    job_id: str  # who needed devices; "" where a node was drained, or somebody asked for it
    at_ms: int
    queue_name: str
    priority: int
    devices_milli: int  # how many, in thousandths
    node_ids: tuple[str, ...]  # where they were set aside; or that are drained
    considered: tuple[Considered, ...]  # those that go first, then the cheapest; at most so many
    reason: str = ""  # that was given for a drain or with a request
    actor: str = ""  # who asked for it; "" where the scheduler decided

    @property
    def id(self) -> str:
        first = self.considered[0]
        return f"{self.job_id or f'{first.job_id}.{first.attempt}'}@{self.at_ms}"
