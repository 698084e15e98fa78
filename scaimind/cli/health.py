"""The verb about how far nodes and devices are trusted."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from scaimind.cli.complete import NodeId
from scaimind.cli.printer import Rows
from scaimind.cli.session import Session, verb
from scaimind.cli.tables import enum
from scaimind.cli.text import ago

if TYPE_CHECKING:
    from scaimind.v1 import node_pb2


class State(StrEnum):
    """What an admin may say of a node or a device."""

    HEALTHY = "HEALTHY"
    PROBATION = "PROBATION"
    QUARANTINED = "QUARANTINED"


def add(app: typer.Typer) -> None:
    """Adds this verb to the command line."""
    verb(app, 'scaimind health node-7 QUARANTINED --device GPU-4f1c --reason "smells"')(health)


def health(
    session: Session,
    node_id: NodeId,
    state: Annotated[
        State | None,
        typer.Argument(
            case_sensitive=False,
            show_default=False,
            help="HEALTHY forgets all, PROBATION tries it now, QUARANTINED keeps it out",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="One of its devices; default: the node")] = "",
    reason: Annotated[str, typer.Option(help="Why; kept with the node")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would be")] = False,
) -> None:
    """Shows what is held against a node and its devices, or says how far they are trusted."""
    if state is None:
        session.show(session.client.node(node_id), _grades, _notes)
        return
    answer = session.client.set_node_health(
        node_id, state.value, device_id=device, reason=reason, validate_only=dry_run
    )
    session.show(answer, _grades, _notes)


def _all(node: "node_pb2.Node") -> "list[tuple[str, node_pb2.NodeHealth]]":
    known = [(device.device_id, device.health) for device in node.devices]
    return [(node.node_id, node.health), *known]


def _grades(node: "node_pb2.Node") -> Rows:
    tried = set(node.health.canary_device_ids)
    cells = [
        (
            name,
            enum(health, "state"),
            f"{health.score:.1f}",
            ago(health.since),
            "canary" if name in tried else _until(health),
        )
        for name, health in _all(node)
    ]
    return Rows(("WHAT", "STATE", "SCORE", "SINCE", "NEXT"), cells)


def _until(health: "node_pb2.NodeHealth") -> str:
    return health.until.ToDatetime().strftime("%H:%M:%S UTC") if health.HasField("until") else ""


def _notes(node: "node_pb2.Node") -> Rows:
    cells = [
        (name, note.code, str(note.seen_count), ago(note.seen_at), note.message)
        for name, health in _all(node)
        for note in health.notes
    ]
    headers = ("WHAT", "SEEN", "TIMES", "LAST", "MESSAGE")
    return Rows(headers if cells else (), cells)
