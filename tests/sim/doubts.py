"""What a leader must not do before it knows what runs: it may be behind what agents do."""

from __future__ import annotations

from coordinator.core.decision import Changed, Event, Heard, Retired
from coordinator.core.reasons import Reason
from coordinator.core.records import Kind, Lease, Node
from tests.sim.coordinator import SETTINGS
from tests.sim.truth import Checker, SimFailure


class DoubtedTakesNothing(Checker):
    """Nothing is granted on a node that this leader has not heard, or that told of leases which nobody
    knows; nor to a job of which such a lease was told, unless its node was given up since."""

    facts = (Heard, Retired, Node, Lease)

    def __init__(self) -> None:
        self._unknown: dict[str, tuple[str, ...]] = {}  # by node, of those that were heard
        self._given_up: set[str] = set()

    def led(self) -> None:
        self._unknown.clear()

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Heard) and not event.renewed:
            self._unknown[event.node_id] = event.unknown
        elif isinstance(event, Retired) and event.kind is Kind.NODE:
            self._unknown.pop(event.id, None)
        elif isinstance(event, Changed) and isinstance(event.record, Node):
            node = event.record
            change = self._given_up.add if node.fenced_at_ms else self._given_up.discard
            change(node.node_id)
        elif isinstance(event, Changed) and event.cause is Reason.LEASE_GRANTED:
            assert isinstance(event.record, Lease)
            self._granted(event.record)

    def _granted(self, lease: Lease) -> None:
        told = self._unknown.get(lease.node_id)
        if told is None or told:
            why = f"tells of {told}" if told else "was not heard yet"
            text = f"{lease.lease_id} granted on {lease.node_id}, which {why}"
            raise SimFailure(text, lease.job_id, lease.node_id)
        for node_id, unknown in self._unknown.items():
            mine = [one for one in unknown if one.startswith(f"{lease.job_id}.")]
            if mine and node_id not in self._given_up:
                text = f"{lease.lease_id} granted while {node_id} tells of {mine}"
                raise SimFailure(text, lease.job_id, node_id)


class SilenceIsLong(Checker):
    """No node is called silent before it was so for its whole time, as far as this leader can know: not
    heard since then, and the leader there to hear it."""

    facts = (Heard, Node)

    def __init__(self) -> None:
        self._heard_ms: dict[str, int] = {}

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Heard):
            self._heard_ms[event.node_id] = event.at_ms
        elif isinstance(event, Changed) and event.cause is Reason.NODE_UNREACHABLE:
            assert isinstance(event.record, Node)
            node_id = event.record.node_id
            silent_ms = event.at_ms - self._heard_ms[node_id]
            if silent_ms < SETTINGS.unreachable_after_ms:
                raise SimFailure(f"{node_id} is called silent after {silent_ms} ms", node_id)
