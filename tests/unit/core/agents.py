"""Equal nodes of eight devices or fewer, whose agents only a test lets speak."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.core.commands import Caller, ObservedLease, SyncNode
from coordinator.core.core import Core
from coordinator.core.records import Device, Offer
from coordinator.core.settings import CoreSettings

CALLER = Caller(tenant_id="acme", user_id="ada")
AGES_MS = 1 << 50


def unwatched() -> Core:
    """A core to which silence means nothing."""
    return Core(CoreSettings(unreachable_after_ms=AGES_MS, replace_after_ms=2 * AGES_MS))


def report(
    node_id: str, leases: Sequence[ObservedLease], *, sequence: int, devices: int
) -> SyncNode:
    """What an agent tells of its node."""
    ids = [f"{node_id}/{number}" for number in range(devices)]
    found = tuple(Device(device_id=id, index=n, type="H100") for n, id in enumerate(ids))
    return SyncNode(
        node_id=node_id,
        incarnation="a",
        generation=1,
        sequence=sequence,
        offer=Offer(devices=found, cpu_count=64),
        leases=tuple(leases),
    )
