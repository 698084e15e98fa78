"""The verbs about the cluster: queue, cluster, nodes, enable, remove."""

from enum import StrEnum
from typing import Annotated

import typer

from scaimind.cli import complete, tables
from scaimind.cli.complete import NodeId
from scaimind.cli.exits import fail
from scaimind.cli.session import Session, verb


class Order(StrEnum):
    """How a queue is ordered."""

    PRIORITY_FIFO = "PRIORITY_FIFO"
    FAIR = "FAIR"
    SHORTEST = "SHORTEST"


def add(app: typer.Typer) -> None:
    """Adds these verbs to the command line."""
    verb(app, "scaimind queue")(queue)
    verb(app, "scaimind queues")(queues)
    verb(app, "scaimind set-queue research --order FAIR --guaranteed 64 --tenant '*=32'")(set_queue)
    verb(app, "scaimind remove-queue research")(remove_queue)
    verb(app, "scaimind cluster -o json")(cluster)
    verb(app, "scaimind nodes --status READY")(nodes)
    verb(app, "scaimind enable node-7")(enable)
    verb(app, "scaimind remove node-7")(remove)


def queue(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="[QUEUE]", help="Default: all")] = "",
) -> None:
    """Lists what waits, in order."""
    session.show(session.client.queue(name), tables.queues)


def queues(
    session: Session,
    page_size: Annotated[int, typer.Option(min=1, max=100, help="Queues a page")] = 100,
    page_token: Annotated[str, typer.Option(help="Of the page before")] = "",
) -> None:
    """Lists how queues are set, and what they hold."""
    page = session.client.queues_page(page_size=page_size, page_token=page_token)
    session.show(page, tables.queues_set)


def set_queue(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="QUEUE", show_default=False)],
    below: Annotated[str, typer.Option(metavar="QUEUE", help="The queue above it")] = "root",
    order: Annotated[Order, typer.Option(case_sensitive=False, help="Whose turn it is")] = (
        Order.PRIORITY_FIFO
    ),
    weight: Annotated[int, typer.Option(min=1, help="Its part of a queue that is FAIR")] = 1,
    guaranteed: Annotated[int, typer.Option(min=0, help="Devices that it gets back")] = 0,
    most: Annotated[int, typer.Option(min=0, help="Devices that it may hold; 0 is any")] = 0,
    tenant: Annotated[
        list[str] | None,
        typer.Option(metavar="TENANT=N", help="Devices of a tenant in it; * is any other"),
    ] = None,
    closed: Annotated[bool, typer.Option("--closed", help="It takes no new jobs")] = False,
    cordoned: Annotated[bool, typer.Option("--cordoned", help="It starts no jobs")] = False,
    preempts: Annotated[
        bool, typer.Option("--preempts", help="Its jobs take devices by their turn")
    ] = False,
    aging: Annotated[
        int, typer.Option(min=0, help="In SHORTEST: how much waiting counts, in thousandths")
    ] = 20,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check")] = False,
) -> None:
    """Sets a queue: where it stands, how it is ordered, what it may take.

    Whole and at once: what is not given is as by default.
    """
    answer = session.client.set_queue(
        name,
        parent=below,
        order=order.value,
        weight=weight,
        guaranteed_devices=guaranteed,
        max_devices=most,
        tenant_limits=dict(map(_limit, tenant or ())),
        closed=closed,
        cordoned=cordoned,
        preempts=preempts,
        aging_permille=aging,
        validate_only=dry_run,
    )
    session.show(answer, tables.queue_settings)


def _limit(text: str) -> tuple[str, int]:
    tenant, _, most = text.partition("=")
    if not tenant or not most.isdigit():
        fail(f"--tenant {text}: must be TENANT=N, such as acme=32")
    return tenant, int(most)


def remove_queue(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="QUEUE", show_default=False)],
) -> None:
    """Lets a queue be as by default again; its jobs stay in it."""
    session.show(session.client.remove_queue(name), tables.queue_removed)


def cluster(session: Session) -> None:
    """Shows the totals of the cluster."""
    session.show(session.client.cluster(), tables.cluster)


def nodes(
    session: Session,
    node_id: Annotated[
        str,
        typer.Argument(
            metavar="[NODE]",
            help="Show this one, with devices",
            autocompletion=complete.node_ids,
        ),
    ] = "",
    status: Annotated[str, typer.Option(help="READY, DRAINING, DRAINED or UNREACHABLE")] = "",
    page_size: Annotated[int, typer.Option(min=1, max=100, help="Nodes a page")] = 100,
    page_token: Annotated[str, typer.Option(help="Of the page before")] = "",
) -> None:
    """Lists the nodes, or shows one."""
    if node_id:
        session.show(session.client.node(node_id), tables.node, tables.devices)
        return
    page = session.client.nodes_page(
        status=status.upper(), page_size=page_size, page_token=page_token
    )
    session.show(page, tables.nodes)


def enable(session: Session, node_id: NodeId) -> None:
    """Lets a drained node take jobs again."""
    session.show(session.client.enable(node_id), tables.enabled)


def remove(session: Session, node_id: NodeId) -> None:
    """Removes a node that is switched off for ever; what ran there is queued again."""
    session.show(session.client.remove_node(node_id), tables.removed)
