"""What an admin should look at. docs/operations.md tells what to do about each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from coordinator.core.contact import Contacts, is_missing
from coordinator.core.reasons import Reason
from coordinator.rpc import convert
from coordinator.runtime.view import View
from scaimind.v1 import mind_coordinator_pb2 as api

MOST = 100
NAMED = 10


def alarms(view: View, *, for_operator: bool = True) -> list[api.Alarm]:
    """The alarms of now, those of the whole cluster first. Only operators are told of leases by name."""
    unknown = _unknown(view, for_operator=for_operator)
    return list(islice((*_frozen(view), *_awaited(view), *unknown, *_kept_out(view)), MOST))


def _frozen(view: View) -> Iterator[api.Alarm]:
    contacts = Contacts()
    for node in view.nodes.values():
        contacts.put(node.node_id, node)
    if contacts.frozen:
        missing = [node for node in view.nodes.values() if is_missing(node)]
        yield api.Alarm(
            code=Reason.REPLACEMENT_FROZEN.value,
            message=f"{len(missing)} nodes went silent at about once, so none of their jobs is "
            "started elsewhere; remove those nodes that are gone for ever",
            since=convert.timestamp(max(node.unreachable_since_ms for node in missing)),
        )


def _awaited(view: View) -> Iterator[api.Alarm]:
    awaited = sorted(
        node.node_id
        for node in view.nodes.values()
        if node.restored and not node.unreachable_since_ms
    )
    if awaited:
        yield api.Alarm(
            code=Reason.NODES_AWAITED.value,
            message="the state is that of a backup: nothing is placed before these nodes were heard "
            f"or are UNREACHABLE: {_named(awaited)}",
            since=convert.timestamp(max(view.heard_ms.get(node_id, 0) for node_id in awaited)),
        )


def _unknown(view: View, *, for_operator: bool) -> Iterator[api.Alarm]:
    for node_id, unknown in sorted(view.unknown.items()):
        which = f": {_named(unknown.lease_ids)}" if for_operator else ""
        yield api.Alarm(
            code=Reason.LEASES_UNKNOWN.value,
            message=f"{len(unknown.lease_ids)} leases of the node are not known here, and are being "
            f"stopped{which}",
            node_id=node_id,
            since=convert.timestamp(unknown.since_ms),
        )


def _kept_out(view: View) -> Iterator[api.Alarm]:
    for node_id, node in sorted(view.nodes.items()):
        out = [(id, grade) for id, grade in node.health.grades() if grade.is_out]
        if not out:
            continue
        names = [f"{id or 'the node'} is {grade.state}" for id, grade in out]
        yield api.Alarm(
            code=Reason.NODE_QUARANTINED.value,
            message=f"kept out for what was seen of it, until a canary has passed: {_named(names)}",
            node_id=node_id,
            since=convert.timestamp(min(grade.since_ms for _, grade in out)),
        )


def _named(ids: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
