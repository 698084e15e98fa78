"""Properties of rolling drains, counted anew from all that is live."""

from __future__ import annotations

from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.records import Kind, Lease, Node, Record, RollingDrain
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, SimFailure


class FewOut(Checker):
    """Never are more nodes out by one rolling drain than may be; it takes each once, and none once it
    has ended; a node that is not empty yet stays counted for as long as it is drained."""

    facts = (Lease, Node, RollingDrain, Retired)

    def __init__(self) -> None:
        self._drains: dict[str, RollingDrain] = {}
        self._out: dict[str, str] = {}  # the rolling drain, by node
        self._taken: set[tuple[str, str]] = set()
        self._busy: dict[str, str] = {}  # the node, by lease that has not ended

    def rewound(self, store: RecordsKept) -> None:
        self._drains.clear()
        self._out.clear()
        self._taken.clear()
        self._busy.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Retired):
            if event.kind is Kind.NODE:
                self._out.pop(event.id, None)
            elif event.kind is Kind.ROLLING_DRAIN:
                del self._drains[event.id]
            elif event.kind is Kind.LEASE:
                self._busy.pop(event.id, None)
        elif isinstance(event, Changed):
            before = dict(self._out)
            self._take(event.record)
            if isinstance(event.record, Node) and self._out != before:
                self._check(event.record, before=before.get(event.record.node_id, ""))

    def _take(self, record: Record) -> None:
        if isinstance(record, RollingDrain):
            self._drains[record.drain_id] = record
        elif isinstance(record, Node):
            self._out.pop(record.node_id, None)
            if record.drain is not None and record.drain.rolling:
                self._out[record.node_id] = record.drain.rolling
        elif isinstance(record, Lease):
            self._busy.pop(record.lease_id, None)
            if not record.is_ended:
                self._busy[record.lease_id] = record.node_id

    def _check(self, node: Node, *, before: str) -> None:
        node_id = node.node_id
        if before and node_id not in self._out and node.drain and node_id in self._busy.values():
            raise SimFailure(f"{before} counts a node no more that is not empty", node_id)
        drain = self._drains.get(self._out.get(node_id, ""))
        if drain is None:
            return
        count = sum(one == drain.drain_id for one in self._out.values())
        if count > drain.max_unavailable:
            raise SimFailure(f"{drain.drain_id} has {count} nodes out", node_id)
        if (drain.drain_id, node_id) in self._taken:
            raise SimFailure(f"{drain.drain_id} takes {node_id} again", node_id)
        self._taken.add((drain.drain_id, node_id))
        if drain.ended_at_ms:
            raise SimFailure(f"{drain.drain_id} has ended and takes {node_id}", node_id)
