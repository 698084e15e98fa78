"""Who is out of contact, and whether so many are that the coordinator should rather doubt itself.

A node that is not heard may be dead, cut off, or well while it is the coordinator that is cut off. One
silent node among many is most likely the fault of that node; a third of the cluster going silent within
a minute is most likely ours, or the network's, and then nothing is to be given to other nodes. Nodes
that were given up before, and silent ones that an admin drains, are no surprise and do not count.

Since when a node has been in contact is counted by this leader alone, from the first that it hears of it:
what was heard before a restart, or before it was held up, says nothing of the time between.
"""

from __future__ import annotations

from coordinator.core.decision import Heard
from coordinator.core.records import Node

SURPRISING_COUNT = 2
SURPRISING_PART = 3  # one in so many


def is_missing(node: Node) -> bool:
    """Whether it is out of contact and was not yet given up."""
    return bool(node.unreachable_since_ms) and not node.fenced_at_ms


class Contacts:
    """Nodes in contact and nodes that went missing; one entry per node."""

    def __init__(self) -> None:
        self.missing: dict[str, None] = {}
        self._surprising: dict[str, None] = {}
        self._in_contact: dict[str, None] = {}
        self._since_ms: dict[str, int] = {}

    def put(self, node_id: str, node: Node | None) -> None:
        """Files a node as it is now; None takes it off."""
        missing = node is not None and is_missing(node)
        _file(self.missing, node_id, member=missing)
        _file(self._surprising, node_id, member=missing and node is not None and node.drain is None)
        in_contact = node is not None and not node.unreachable_since_ms
        _file(self._in_contact, node_id, member=in_contact)
        if not in_contact:
            self._since_ms.pop(node_id, None)

    def hear(self, event: Heard) -> None:
        """A node was heard, or could not have been."""
        if event.renewed:
            self._since_ms.pop(event.node_id, None)
        elif event.node_id in self._in_contact:
            self._since_ms.setdefault(event.node_id, event.at_ms)

    def since_ms(self, node_id: str) -> int | None:
        """Since when the node has been in contact without a break; None while it is not."""
        return self._since_ms.get(node_id)

    @property
    def frozen(self) -> bool:
        """Whether so many nodes are missing that none may be given up."""
        count = len(self._surprising)
        known = count + len(self._in_contact)
        return count >= SURPRISING_COUNT and count * SURPRISING_PART > known


def _file(members: dict[str, None], id: str, *, member: bool) -> None:
    if member:
        members[id] = None
    else:
        members.pop(id, None)
