"""What would be free if some attempts had ended, or if nothing were set aside for somebody.

It lays this over the index of free room for as long as it is asked, and takes it off again. Attempts are
supposed to end one after another, so each step costs what the nodes of one attempt cost.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.known import Known, kept_for
from coordinator.core.placement import Placement, least_on_node, place
from coordinator.core.records import Demand, Job
from coordinator.core.room import Room


class Supposed:
    """A context in which what is free is as if it were so.

    `unkept` names a job for which nothing is taken to be set aside; `planned` are nodes that are taken
    though they are to be out later.
    """

    def __init__(self, known: Known, *, unkept: str = "", planned: Iterable[str] = ()) -> None:
        self._known = known
        self._unkept = unkept
        self._planned = dict.fromkeys(planned)
        self._gone: dict[str, set[str]] = {}  # leases that are taken to have ended, by node
        self._before: dict[str, Room | None] = {}
        self._grown: dict[str, None] = {}  # nodes with more than when last a place was sought
        self._begun = self._sought = False

    def __enter__(self) -> Supposed:
        return self  # many are asked nothing: there is nothing to lay before the first question

    def __exit__(self, *_: object) -> None:
        for node_id, room in self._before.items():
            self._known.free.put(node_id, room)

    def end(self, jobs: Iterable[Job]) -> None:
        """Takes the attempts of jobs to have ended."""
        self.begin()
        nodes: dict[str, None] = {}
        for job in jobs:
            for lease in self._known.attempt_leases(job):
                self._gone.setdefault(lease.node_id, set()).add(lease.lease_id)
                nodes[lease.node_id] = None
        for node_id in nodes:
            self._lay(node_id)
        self._grown.update(nodes)

    def stay(self, job: Job) -> None:
        """Takes an attempt not to have ended after all."""
        for lease in self._known.attempt_leases(job):
            self._gone[lease.node_id].discard(lease.lease_id)
            self._lay(lease.node_id)

    def all_stay(self) -> None:
        """Takes none of them to have ended after all."""
        nodes = [node_id for node_id, gone in self._gone.items() if gone]
        self._gone.clear()
        for node_id in nodes:
            self._lay(node_id)

    def place(self, demand: Demand) -> Placement | None:
        """Where the demand would fit."""
        self.begin()
        return place(self._known.free, demand)

    def place_now(self, demand: Demand) -> Placement | None:
        """Where it would fit; it is always the same demand that is asked about, and until now it did
        not fit: so it needs one of the nodes that have more since."""
        rooms, least = self._known.free.rooms, least_on_node(demand)
        grown, self._grown = self._grown, {}
        may = any((room := rooms.get(x)) and room.device_count >= least for x in grown)
        if self._sought and not may:
            return None
        self._sought = True
        return self.place(demand)

    def begin(self) -> None:
        """Lays it over what is free, for who reads that itself; every question begins it."""
        if self._begun:
            return
        self._begun = True
        kept = kept_for(self._known.jobs[self._unkept]) if self._unkept else ()
        for node_id in dict.fromkeys((*(share.node_id for share in kept), *self._planned)):
            self._lay(node_id)

    def _lay(self, node_id: str) -> None:
        free = self._known.free
        if node_id not in self._before:
            self._before[node_id] = free.rooms.get(node_id)
        room = self._known.free_room(
            node_id,
            without=self._gone.get(node_id, ()),
            unkept=self._unkept,
            planned=node_id in self._planned,
        )
        free.put(node_id, room)
