"""What a node has, exactly and in steps: the values of the index of capacity.

A form is what a node looks like when amounts are rounded down to steps. Equal forms are equal to whoever
compares places; what a form leaves out decides only whether one node of it holds a certain job.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from coordinator.core.records import WHOLE, Device, Pairs

PART_STEP = 100  # thousandths of a device that look alike


@dataclass(frozen=True, slots=True, order=True)
class DeviceClass:
    """Devices that are alike to the scheduler."""

    type: str
    memory_bytes: int


class Pool(NamedTuple):
    """Devices of one class on one node."""

    device_class: DeviceClass
    device_ids: tuple[str, ...]  # that are wholly free, in the order of use
    parts: tuple[tuple[int, str], ...] = ()  # (thousandths that are free, device), least first

    def device_with(self, thousandths: int, *, step: int) -> str:
        """A device of which so much is free: one of that step where there is one, else the tightest."""
        enough = [(free, device_id) for free, device_id in self.parts if free >= thousandths]
        if self.device_ids and (step == WHOLE or not enough):
            return self.device_ids[0]
        return next(
            (id for free, id in enough if free // PART_STEP * PART_STEP == step), enough[0][1]
        )


@dataclass(frozen=True, slots=True)
class Room:
    """What one node has: its pools by class, and the machine's own resources."""

    labels: Pairs
    pools: tuple[Pool, ...]
    cpu_count: int
    memory_bytes: int
    disk_bytes: int
    is_suspect: bool = False  # taken last

    @property
    def device_count(self) -> int:
        """Devices of which anything is there."""
        return sum(len(pool.device_ids) + len(pool.parts) for pool in self.pools)

    def devices_of(self, device_type: str) -> int:
        """The same of one type."""
        found = (pool for pool in self.pools if pool.device_class.type == device_type)
        return sum(len(pool.device_ids) + len(pool.parts) for pool in found)

    def devices_with(self, thousandths: int) -> set[str]:
        """Devices of which so much is free."""
        whole = {device_id for pool in self.pools for device_id in pool.device_ids}
        parts = (part for pool in self.pools for part in pool.parts)
        return whole.union(device_id for free, device_id in parts if free >= thousandths)

    def pool(self, device_class: DeviceClass) -> Pool:
        """Its devices of a class; an empty pool where it has none."""
        for one in self.pools:
            if one.device_class == device_class:
                return one
        return Pool(device_class, ())


class Look(NamedTuple):
    """A pool as a form has it."""

    whole_count: int
    parts: tuple[int, ...]  # thousandths in steps, rounded down


class Form(NamedTuple):
    """What equal nodes have in common, tightest first. Levels are those of `level_of`."""

    look: Look
    cpu_level: int
    memory_level: int
    disk_level: int
    others: tuple[tuple[DeviceClass, Look], ...]  # the node's other pools


class Exact(NamedTuple):
    """What nodes of one form may differ in, tightest first."""

    cpu_count: int
    memory_bytes: int
    disk_bytes: int
    parts: tuple[int, ...]


def form_of(room: Room, look: Look, *, others: tuple[tuple[DeviceClass, Look], ...]) -> Form:
    """The form under which one pool of a room is filed."""
    return Form(
        look,
        level_of(room.cpu_count),
        level_of(room.memory_bytes) >> 1,
        level_of(room.disk_bytes) >> 2,
        others,
    )


def exact_of(room: Room, pool: Pool) -> Exact:
    """What its form leaves out of a pool and its machine."""
    parts = tuple(thousandths for thousandths, _ in pool.parts)
    return Exact(room.cpu_count, room.memory_bytes, room.disk_bytes, parts)


def level_of(amount: int) -> int:
    """On a scale with four steps to each doubling; 0 for nothing."""
    if amount <= 0:
        return 0
    length = amount.bit_length()
    return (length << 2) | (((amount << 3) >> length) & 3)


def least_of(level: int) -> int:
    """The least amount of a level, rounded up; 0 for level 0."""
    return -(-((4 + (level & 3)) << (level >> 2)) // 8) if level >= 4 else 0


def pools_of(
    devices: Iterable[Device],
    shared: dict[str, int] | None = None,
    *,
    last: Container[str] = (),
) -> tuple[Pool, ...]:
    """Devices grouped into classes; by class, then by index on the node, and those of `last` last.

    `shared` names thousandths that are free of those devices of which a part is taken.
    """
    shared = shared or {}
    groups: dict[tuple[str, int], list[Device]] = {}
    for device in devices:
        groups.setdefault((device.type, device.memory_bytes), []).append(device)
    return tuple(
        _pool(DeviceClass(*key), groups[key], shared=shared, last=last) for key in sorted(groups)
    )


def _pool(
    device_class: DeviceClass,
    devices: list[Device],
    *,
    shared: dict[str, int],
    last: Container[str],
) -> Pool:
    devices.sort(key=lambda d: (d.device_id in last, d.index, d.device_id))
    whole = tuple(d.device_id for d in devices if shared.get(d.device_id, WHOLE) == WHOLE)
    parts = [(shared[d.device_id], d.device_id) for d in devices if d.device_id in shared]
    return Pool(device_class, whole, tuple(sorted(parts)))


def look_of(pool: Pool) -> Look:
    """A pool in steps."""
    parts = tuple(thousandths // PART_STEP * PART_STEP for thousandths, _ in pool.parts)
    return Look(len(pool.device_ids), parts)


def grew(before: Room, after: Room) -> bool:
    """Whether a job might fit after that did not fit before."""
    return (
        not set(after.labels).issubset(before.labels)
        or any(_holds_more(pool, before.pool(pool.device_class)) for pool in after.pools)
        or after.cpu_count > before.cpu_count
        or after.memory_bytes > before.memory_bytes
        or after.disk_bytes > before.disk_bytes
    )


def _holds_more(pool: Pool, before: Pool) -> bool:
    """Whether there are more whole devices, or more is free of any."""
    had = {device_id: thousandths for thousandths, device_id in before.parts}
    return len(pool.device_ids) > len(before.device_ids) or any(
        thousandths > had.get(device_id, 0) for thousandths, device_id in pool.parts
    )
