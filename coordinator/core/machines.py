"""The record of a node: what it offers, what an admin wishes of it, and what is known of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from typing import ClassVar

from coordinator.core.faults import Fault
from coordinator.core.health import SOUND, Health
from coordinator.core.kinds import Kind, Pairs
from coordinator.core.window import Window

_INSTANCE = re.compile(r".+-(?:\d+c\.)?\d+g\.\d+gb[a-z0-9.]*")


@lru_cache(maxsize=256)
def is_instance(device_type: str) -> bool:
    """Whether such devices are instances of GPUs partitioned in hardware (MIG), as `H100-1g.10gb` are."""
    return _INSTANCE.fullmatch(device_type) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator of a node. Instances of one GPU carry its `index`; no others are alike in it."""

    device_id: str
    index: int
    type: str
    model: str = ""
    memory_bytes: int = 0
    simulated: bool = False
    healthy: bool = True
    faults: tuple[Fault, ...] = ()  # since the agent started, by code


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a node offers; observed."""

    devices: tuple[Device, ...]
    address: str = ""
    labels: Pairs = ()
    simulated: bool = False
    cpu_count: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    agent_version: str = ""
    holds: tuple[str, ...] = ()  # hashes of the data and images that are there, sorted
    holds_bytes: tuple[int, ...] = ()  # of each of them; () is not known
    fetch_bytes_per_s: int = 0  # how fast it has fetched such things lately; 0 is not known

    @property
    def held(self) -> dict[str, int]:
        """How many bytes of each of the things that are there; 0 where that is not known."""
        unknown = repeat(0, len(self.holds) - len(self.holds_bytes))
        return dict(zip(self.holds, chain(self.holds_bytes, unknown), strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """An admin's wish that a node be emptied; desired."""

    requested_at_ms: int
    force: bool = False  # what runs there is stopped, after a checkpoint or its grace
    move: bool = False  # what runs there leaves once a checkpoint is proven, however late
    reason: str = ""
    deadline_ms: int = 0  # by force from then on; 0 is none
    actor: str = ""
    rolling: str = ""  # the rolling drain that has the node out


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine that offers devices. When it was last heard is not part of the record."""

    kind: ClassVar[Kind] = Kind.NODE

    node_id: str
    generation: int  # starts of its agent; observed
    incarnation: str  # names this start; observed
    offer: Offer
    drain: Drain | None = None
    window: Window | None = None  # planned, or what has it drained
    unreachable_since_ms: int = 0  # 0 while in contact
    fenced_at_ms: int = 0  # when it was given up: what may run elsewhere does not run here; or 0
    joined_at_ms: int = 0
    updated_at_ms: int = 0
    version: int = 1
    restored: bool = False  # it comes from a backup, and the node was not heard since
    health: Health = SOUND

    @property
    def id(self) -> str:
        return self.node_id
