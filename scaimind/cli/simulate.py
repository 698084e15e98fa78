"""The verb that tries changes out on a copy of the cluster."""

from typing import TYPE_CHECKING, Annotated

import typer

from scaimind.cli import jobfile
from scaimind.cli.printer import Rows
from scaimind.cli.session import Session, verb
from scaimind.cli.text import number, optional_seconds

if TYPE_CHECKING:
    from scaimind.v1 import mind_coordinator_pb2 as pb

SHAPE = "a file of changes holds an object with `changes`, a list"


def add(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    verb(app, "scaimind simulate -f changes.yaml")(simulate)


def simulate(
    session: Session,
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="YAML with changes; - is stdin")
    ],
) -> None:
    """Tells what changes would come to: queues, drains, new nodes, jobs. Nothing is changed.

    The file holds `changes`, a list of set_queue, remove_queue, drain, rolling_drain, enable, add_nodes
    and submit, each as its request over REST, and perhaps `horizon_seconds`.
    """
    answer = session.client.simulate(jobfile.read(file, [], shape=SHAPE))
    session.show(answer, outlooks, starts, refused)


def outlooks(answer: "pb.SimulateResponse") -> Rows:
    """What lies ahead, without the changes and with them."""
    both = answer.before, answer.after
    lines = [
        ("jobs that start", [str(one.started_count) for one in both]),
        ("jobs that end", [str(one.ended_count) for one in both]),
        ("preempted", [str(one.preempted_count) for one in both]),
        ("left a drained node", [str(one.drained_count) for one in both]),
        ("lost device-seconds", [number(one.lost_device_seconds) for one in both]),
        ("restart device-seconds", [number(one.restart_device_seconds) for one in both]),
        ("mean wait", [optional_seconds(one, "mean_wait_seconds") for one in both]),
        ("empty in", [optional_seconds(one, "empty_seconds") for one in both]),
    ]
    cells = [(name, *values) for name, values in lines]
    note = f"{answer.sooner_count} jobs start sooner, {answer.later_count} later"
    return Rows(("", "AS IT IS", "WITH THE CHANGES"), cells, note=note)


def starts(answer: "pb.SimulateResponse") -> Rows:
    """The jobs whose start changes."""
    cells = [
        (
            one.job_id,
            f"{one.devices:g}",
            optional_seconds(one, "before_seconds"),
            optional_seconds(one, "after_seconds"),
        )
        for one in answer.starts
    ]
    return Rows(("JOB", "DEVICES", "STARTS IN", "THEN IN") if cells else (), cells)


def refused(answer: "pb.SimulateResponse") -> Rows:
    """The changes that would be refused."""
    cells = [
        (f"change {one.index + 1}", one.error.code, one.error.message) for one in answer.refused
    ]
    return Rows((), cells)
