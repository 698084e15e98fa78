"""What would be free if some attempts had ended, or if nothing were set aside for somebody.

It lays this over the index of free room for as long as it is asked, and takes it off again. Attempts are
supposed to end one after another, so each step costs what the nodes of one attempt cost; and that only once
a place is sought: where a count of devices says that there is none, nothing is laid.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.known import Known, kept_for
from coordinator.core.placement import Placement, least_on_node, place
from coordinator.core.records import Demand, Job, Share
from coordinator.core.room import Room

EVERYTHING = 1 << 62  # devices


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
        self._kept: dict[str, dict[str, Share]] = {}  # what is set aside besides, by node
        self._before: dict[str, Room | None] = {}
        self._grown: dict[str, None] = {}  # nodes with more than when last a place was sought
        self._due: dict[str, int] = {}  # nodes to be laid yet, with how many devices more at most
        self._rooms: dict[tuple[str, frozenset[str]], Room | None] = {}  # a memo: as they were laid
        self._begun = self._sought = False

    def __enter__(self) -> Supposed:
        return self  # many are asked nothing: there is nothing to lay before the first question

    def __exit__(self, *_: object) -> None:
        for node_id, room in self._before.items():
            self._known.free.put(node_id, room)

    def end(self, jobs: Iterable[Job]) -> None:
        """Takes the attempts of jobs to have ended."""
        self.begin()
        for job in jobs:
            for lease in self._known.attempt_leases(job):
                self._gone.setdefault(lease.node_id, set()).add(lease.lease_id)
                # where one had the node for itself, whatever else is there comes free with it
                more = EVERYTHING if lease.exclusive else len(lease.device_ids)
                self._due[lease.node_id] = more + self._due.get(lease.node_id, 0)
                self._grown[lease.node_id] = None

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

    def keep(self, job_id: str, shares: Iterable[Share]) -> None:
        """Takes devices to be set aside for a job as well."""
        self.begin()
        for share in shares:
            self._kept.setdefault(share.node_id, {})[job_id] = share
            self._lay(share.node_id)

    def keep_nothing(self) -> None:
        """Takes nothing to be set aside besides after all."""
        nodes = [*self._kept]
        self._kept.clear()
        for node_id in nodes:
            self._lay(node_id)

    def place(self, demand: Demand, *, avoid: str = "") -> Placement | None:
        """Where the demand would fit; `avoid` names a node that is taken only when nothing else does."""
        self.lay()
        return place(self._known.free, demand, avoid=avoid)

    def lay(self) -> None:
        """Lays all that is supposed over what is free, for who reads that itself."""
        self.begin()
        for node_id in [*self._due]:
            self._lay(node_id)

    def place_now(self, demand: Demand) -> Placement | None:
        """Where it would fit; it is always the same demand that is asked about, and until now it did
        not fit: so it needs one of the nodes that have more since."""
        least = least_on_node(demand)
        grown, self._grown = self._grown, {}
        may = any(self._most(x) >= least for x in grown)
        if self._sought and not may:
            return None
        self._sought = True
        return self.place(demand)

    def begin(self) -> None:
        """Lays what does not depend on who ends, for who reads what is free before anybody does; every
        question begins it."""
        if self._begun:
            return
        self._begun = True
        kept = kept_for(self._known.jobs[self._unkept]) if self._unkept else ()
        more = dict.fromkeys((*(share.node_id for share in kept), *self._planned))
        self._sought = not more
        for node_id in more:
            self._lay(node_id)

    def _most(self, node_id: str) -> int:
        """How many devices a node has at most."""
        room = self._known.free.rooms.get(node_id)
        return (room.device_count if room else 0) + self._due.get(node_id, 0)

    def _lay(self, node_id: str) -> None:
        known = self._known
        self._due.pop(node_id, None)
        if node_id not in self._before:
            self._before[node_id] = known.free.rooms.get(node_id)
        gone, besides = self._gone.get(node_id, ()), self._kept.get(node_id)
        key = node_id, frozenset(gone)
        room = self._rooms.get(key) if besides is None else None
        if room is None:
            room = known.free_room(
                node_id,
                without=gone,
                unkept=self._unkept,
                planned=node_id in self._planned,
                besides=besides,
            )
            if besides is None:
                self._rooms[key] = room
        known.free.put(node_id, room)
