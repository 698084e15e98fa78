"""Whom those that wait may take devices from on nodes that have more than before.

A job that found no room, not even with what it may take from others of its queue, finds some only where a
node has more: because something came free there, or because an attempt has become one that may be
preempted. So of the first kind it is worth a look only where what is free of such a node and what the job
may take on it are enough for what it needs on one node. It is asked of memos alone, before anything is
tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coordinator.core.known import Known, kept_for
from coordinator.core.order import least_level
from coordinator.core.records import Job, Order
from coordinator.core.tree import Shape

MANY = 64  # nodes that are looked at


@dataclass(slots=True)
class _There:
    """What a queue could have of a node."""

    device_type: str
    free: int
    held: list[tuple[int, int, int]]  # (standing, level, devices) of its attempts


class Prey:
    """Attempts of queues that preempt, as they are filed, on nodes that have more."""

    def __init__(self, known: Known, nodes: Mapping[str, Iterable[str]]) -> None:
        self._known = known
        self._free: dict[str, int] = {}  # most devices free on one node, by type
        self._there: dict[str, list[_There]] = {}  # by queue
        self._taken: dict[tuple[str, int, int], int] = {}  # devices that may be taken
        self._all: dict[Shape, int] = {}  # devices that are free
        self._most: dict[
            str, int
        ] = {}  # by queue: devices that it holds, or that are set aside for it
        self.queues: dict[str, None] = {}
        for name in known.running.devices if nodes else ():
            queue = known.queues.get(name)
            if queue is not None and queue.preempts:
                self.queues[name] = None
        for device_type, node_ids in nodes.items():
            for node_id in [*node_ids][:MANY]:
                self._add(node_id, device_type)

    def takers(self, shapes: Iterable[Shape]) -> dict[str, None]:
        """The queues of which some job of one of the shapes may be served: a quick no for the others."""
        some = [x for x in shapes if self._has_free(x) if x.is_gang] + [
            x for x in shapes if self._is_gathered(x)
        ]
        need = min((x.device_count - self._free_in_all(x) for x in some), default=None)
        return {
            name: None
            for name in self.queues
            if name in self._there or (need is not None and need <= self._most_of(name))
        }

    def may_serve(self, queue_name: str, shape: Shape) -> bool:
        """A quick no: whether there would be enough if all of the queue gave way."""
        if queue_name not in self.queues:
            return False
        if shape.is_gang:
            if self._free_in_all(shape) + self._most_of(queue_name) < shape.device_count:
                return False
            if self._has_free(shape):
                return True
        return any(
            shape.least <= one.free + sum(count for _, _, count in one.held)
            for one in self._there.get(queue_name, ())
            if not shape.types or one.device_type in shape.types
        )

    def may_gather(self, queue_name: str, shape: Shape) -> bool:
        """A quick no: whether a job of a queue that needs several devices of a node may fit once others are
        moved, to or from a node that has more."""
        return (
            queue_name in self.queues
            and self._is_gathered(shape)
            and self._free_in_all(shape) + self._most_of(queue_name) >= shape.device_count
        )

    def gathers(self, job: Job, shape: Shape) -> bool:
        """Whether what is free anywhere, with what it may take, are as many devices as a job needs."""
        by_work, least = self._taken_from(job)
        return self._in_all(job, shape, by_work=by_work, least=least) >= shape.device_count

    def _is_gathered(self, shape: Shape) -> bool:
        """Whether it needs several devices of a node, of a type of which some node has more."""
        return shape.least > 1 and any(x in self._free for x in shape.types or self._free)

    def _taken_from(self, job: Job) -> tuple[bool, int]:
        """(Whether a job takes devices of those with more to do, and from which level on.)"""
        queue = self._known.queue_of(job)
        least = 0 if queue.aging_permille else least_level(job)
        return queue.order is Order.SHORTEST, least

    def _has_free(self, shape: Shape) -> bool:
        return any(self._free.get(x, 0) >= shape.least for x in shape.types or self._free)

    def _most_of(self, queue_name: str) -> int:
        known = self._most.get(queue_name)
        if known is None:
            claimants = map(self._known.jobs.__getitem__, self._known.claims.get(queue_name, ()))
            kept = sum(len(x.device_ids) for one in claimants for x in kept_for(one))
            known = self._most[queue_name] = self._known.running.devices[queue_name] + kept
        return known

    def serves(self, job: Job, shape: Shape) -> bool:
        """Whether one of the nodes may come to have as many devices for a job as it needs on one."""
        by_work, from_level = self._taken_from(job)
        if shape.is_gang:
            if self._in_all(job, shape, by_work=by_work, least=from_level) < shape.device_count:
                return False
            if self._has_free(shape):
                return True
        for one in self._there.get(job.queue_name, ()):
            count = one.free
            for standing, level, devices in one.held:
                is_behind = by_work and level >= from_level
                count += devices * (standing < job.standing + is_behind)
            if count >= shape.least and (not shape.types or one.device_type in shape.types):
                return True
        return False

    def _in_all(self, job: Job, shape: Shape, *, by_work: bool, least: int) -> int:
        """How many devices the job would have at most, if all gave way to it that may have to."""
        count = self._free_in_all(shape) + sum(len(x.device_ids) for x in kept_for(job))
        if count >= shape.device_count:
            return count
        running, name, standing = self._known.running, job.queue_name, job.standing
        key = name, standing, least if by_work else -1
        taken = self._taken.get(key)
        if taken is None:
            taken = sum(running.device_count((name, one), 0) for one in range(standing))
            if by_work:
                taken += running.device_count((name, standing), least)
            self._taken[key] = taken
        return count + taken

    def _free_in_all(self, shape: Shape) -> int:
        known = self._all.get(shape)
        if known is None:
            free = self._known.free.devices_by_type
            known = self._all[shape] = sum(free.get(x, 0) for x in shape.types or free)
        return known

    def _add(self, node_id: str, device_type: str) -> None:
        room = self._known.free.rooms.get(node_id)
        free = room.devices_of(device_type) if room else 0
        self._free[device_type] = max(free, self._free.get(device_type, 0))
        found: dict[str, _There] = {}
        for lease_id in self._known.leases_of_node.get(node_id, ()):
            lease = self._known.leases[lease_id]
            filed = self._known.running.filed.get(lease.job_id)
            if filed is None or filed.level is None or filed.rank[0] not in self.queues:
                continue
            name, standing = filed.rank
            there = found.setdefault(name, _There(device_type, free, []))
            there.held.append((standing, filed.level, len(lease.device_ids)))
        for name, there in found.items():
            self._there.setdefault(name, []).append(there)
