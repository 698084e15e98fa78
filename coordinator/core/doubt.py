"""What a coordinator cannot know: its state may be behind what agents do.

A shared store may lose its last batches, a backup is older than the truth, and an admin may have removed
a node that still runs. Then agents hold leases that nobody here knows. They are told to stop them, as
ever when a lease is not desired; until they have, and until it is known which there are,
- a node takes nothing before it was heard by this leader, or while it holds such a lease;
- a job waits while such a lease of it may still run: it must not run twice;
- nothing is placed anywhere before all nodes of a restored state were heard, or are out of contact: any
  of them may run what this state takes to wait.
"""

from __future__ import annotations

from collections.abc import Collection

from coordinator.core.decision import Heard
from coordinator.core.records import Node


class Doubt:
    """Nodes that were not heard yet, and leases that nobody knows; one entry per node or lease."""

    def __init__(self) -> None:
        self.unknown: dict[str, tuple[str, ...]] = {}  # node → leases that it holds, unknown here
        self.restored: dict[str, None] = {}  # nodes in contact, not heard since a restore
        self._awaited: dict[str, None] = {}
        self._holders: dict[str, dict[str, None]] = {}  # job → nodes that hold such leases of it

    def put(self, node_id: str, node: Node | None) -> None:
        """Files a node as it is now; None takes it off, and all that it holds."""
        if node is None:
            self._awaited.pop(node_id, None)
            self._hold(node_id, ())
        if node is not None and node.restored and not node.unreachable_since_ms:
            self.restored[node_id] = None
        else:
            self.restored.pop(node_id, None)

    def hear(self, event: Heard, *, is_first: bool) -> None:
        """Takes over what a report tells; `is_first` for the first event since the state was loaded."""
        if not event.renewed:
            self._awaited.pop(event.node_id, None)
            self._hold(event.node_id, event.unknown)
        elif is_first:
            self._awaited[event.node_id] = None

    def bars(self, node_id: str) -> bool:
        """Whether a node is to take nothing until more is heard of it."""
        return node_id in self._awaited or node_id in self.unknown

    def holders(self, job_id: str) -> Collection[str]:
        """The nodes that hold unknown leases of a job."""
        return self._holders.get(job_id, ())

    def jobs_on(self, node_id: str) -> list[str]:
        """The jobs of which a node holds unknown leases."""
        lease_ids = self.unknown.get(node_id)
        return sorted(set(map(_job_of, lease_ids))) if lease_ids else []

    def _hold(self, node_id: str, lease_ids: tuple[str, ...]) -> None:
        if lease_ids == self.unknown.get(node_id, ()):
            return
        for job_id in self.jobs_on(node_id):
            del self._holders[job_id][node_id]
            if not self._holders[job_id]:
                del self._holders[job_id]
        self.unknown.pop(node_id, None)
        if lease_ids:
            self.unknown[node_id] = lease_ids
        for job_id in self.jobs_on(node_id):
            self._holders.setdefault(job_id, {})[node_id] = None


def _job_of(lease_id: str) -> str:
    return lease_id.partition(".")[0]
