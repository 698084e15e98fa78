"""What a shell completes: ids of jobs and nodes, as the coordinator knows them.

A shell waits for this at every tab, so a coordinator that does not answer at once completes nothing.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from scaimind.cli.tables import enum
from scaimind.cli.text import clean

if TYPE_CHECKING:
    from scaimind.client import Client

PATIENCE_S = 1.0
JOBS_MAX = 100

Item = tuple[str, str]


def job_ids(context: typer.Context, incomplete: str) -> list[Item]:
    """The newest jobs whose id begins so, with status and name."""

    def ask(client: "Client") -> Iterable[Item]:
        for job in client.jobs_page(page_size=JOBS_MAX).jobs:
            yield job.job_id, f"{enum(job)} {job.name}"

    return _asked(context, ask, incomplete=incomplete)


def node_ids(context: typer.Context, incomplete: str) -> list[Item]:
    """The nodes whose id begins so, with their status."""

    def ask(client: "Client") -> Iterable[Item]:
        for node in client.nodes_page(page_size=JOBS_MAX).nodes:
            yield node.node_id, enum(node)

    return _asked(context, ask, incomplete=incomplete)


def _asked(
    context: typer.Context, ask: "Callable[[Client], Iterable[Item]]", *, incomplete: str
) -> list[Item]:
    from scaimind.client import Client, MindError, Tls

    def option(name: str) -> str | None:
        each: typer.Context | None = context
        while each is not None and not each.params.get(name):
            each = each.parent  # type: ignore[assignment]
        return each.params[name] if each is not None else None

    try:
        server, key = option("server"), option("api_key")
        tls = Tls.from_environment()
        with Client(server, key, tls=tls, timeout_s=PATIENCE_S, retry_s=0.0) as client:
            return [
                (name, clean(text)) for name, text in ask(client) if name.startswith(incomplete)
            ]
    except (MindError, OSError, ValueError):
        return []


NodeId = Annotated[
    str,
    typer.Argument(
        metavar="NODE",
        help="The node's id",
        show_default=False,
        autocompletion=node_ids,
    ),
]
