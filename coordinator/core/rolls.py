"""The index of rolling drains: which nodes each has out, and for which something has changed."""

from __future__ import annotations

from coordinator.core.records import Node, RollingDrain


class Rolls:
    """Rolling drains by id; what follows from nodes and leases."""

    def __init__(self) -> None:
        self.drains: dict[str, RollingDrain] = {}
        self.out: dict[str, dict[str, None]] = {}  # nodes that carry its id, by rolling drain
        self.touched: dict[str, None] = {}

    def put(self, drain: RollingDrain) -> None:
        """A rolling drain is new or changed."""
        self.drains[drain.drain_id] = drain
        self.touched[drain.drain_id] = None

    def drop(self, drain_id: str) -> None:
        """A rolling drain is forgotten."""
        del self.drains[drain_id]

    def put_node(self, before: Node | None, node: Node | None) -> None:
        """A node has changed, or is removed."""
        old, new = _of(before), _of(node)
        if old == new:
            return
        if old and before is not None:
            del self.out[old][before.node_id]
            if not self.out[old]:
                del self.out[old]
            self.touched[old] = None
        if new and node is not None:
            self.out.setdefault(new, {})[node.node_id] = None
            self.touched[new] = None

    def touch(self, node: Node | None) -> None:
        """Something has ended on a node."""
        drain_id = _of(node)
        if drain_id:
            self.touched[drain_id] = None

    def take_touched(self) -> list[str]:
        """The rolling drains to look at, by id; they are not asked for again."""
        touched, self.touched = self.touched, {}
        return sorted(touched)


def _of(node: Node | None) -> str:
    return node.drain.rolling if node is not None and node.drain is not None else ""
