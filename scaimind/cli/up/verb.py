"""The verb `up`."""

from pathlib import Path
from typing import Annotated

import typer

from scaimind.cli.up.plan import MAX_NODES


def add(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    app.command(epilog="Example: scaimind up --devices sim:8xH100 --nodes 4")(up)


def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where everything is kept (default: MIND_DATA_DIR, else .mind here where it"
            " exists, else ~/.mind)",
            show_default=False,
        ),
    ] = None,
    http: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Of the gateway; port 0 takes a free one")
    ] = "127.0.0.1:8080",
    grpc: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Of the coordinator; port 0 takes a free one")
    ] = "127.0.0.1:50051",
    devices: Annotated[
        str, typer.Option(help="auto, cpu, or simulated ones such as sim:8xH100")
    ] = "auto",
    nodes: Annotated[int, typer.Option(min=1, max=MAX_NODES, help="How many node agents")] = 1,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Where the coordinator serves Prometheus; nowhere by default"
        ),
    ] = None,
) -> None:
    """Starts a cluster here, until Ctrl-C.

    Coordinator, gateway and node agents, as processes of their own. Programs that die are
    started again. Jobs that still run when it stops go on.
    """
    from scaimind.cli.up import claim, cluster, plan
    from scaimind.client.connection import default_data_dir

    folder = (data_dir or default_data_dir()).expanduser().absolute()
    with claim.claim(folder):
        made = plan.make(
            folder, http=http, grpc=grpc, devices=devices, nodes=nodes, metrics=metrics
        )
        cluster.run(made)
