"""The verbs about the cluster: queue, cluster, nodes, drain, enable, remove."""

from typing import Annotated

import typer

from scaimind.cli import complete, tables
from scaimind.cli.session import Session, verb

NodeId = Annotated[
    str,
    typer.Argument(
        metavar="NODE",
        help="The node's id",
        show_default=False,
        autocompletion=complete.node_ids,
    ),
]


def add(app: typer.Typer) -> None:
    """Adds these verbs to the command line."""
    verb(app, "scaimind queue")(queue)
    verb(app, "scaimind cluster -o json")(cluster)
    verb(app, "scaimind nodes --status READY")(nodes)
    verb(app, 'scaimind drain node-7 --reason "new driver" --deadline 3600')(drain)
    verb(app, "scaimind enable node-7")(enable)
    verb(app, "scaimind remove node-7")(remove)


def queue(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="[QUEUE]", help="Default: all")] = "",
) -> None:
    """Lists what waits, in order."""
    session.show(session.client.queue(name), tables.queues)


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


def drain(
    session: Session,
    node_id: NodeId,
    force: Annotated[
        bool, typer.Option("--force", help="Stop its jobs too; they queue again")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; kept with the node")] = "",
    deadline: Annotated[
        int,
        typer.Option(
            min=0, max=31_536_000, help="Seconds after which its jobs are stopped; 0 never"
        ),
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would happen")] = False,
) -> None:
    """Stops placing jobs on a node; those that run there finish."""
    answer = session.client.drain(
        node_id,
        force=force,
        reason=reason,
        deadline_seconds=deadline,
        validate_only=dry_run,
    )
    session.show(answer, tables.drained)


def enable(session: Session, node_id: NodeId) -> None:
    """Lets a drained node take jobs again."""
    session.show(session.client.enable(node_id), tables.enabled)


def remove(session: Session, node_id: NodeId) -> None:
    """Removes a node that is switched off for ever; what ran there is queued again."""
    session.show(session.client.remove_node(node_id), tables.removed)
