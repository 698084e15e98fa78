"""The verbs that empty nodes: drain, drains."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from scaimind.cli.complete import NodeId
from scaimind.cli.printer import Rows
from scaimind.cli.session import Session, verb
from scaimind.cli.tables import enum
from scaimind.cli.text import number, optional_seconds

if TYPE_CHECKING:
    from scaimind.v1 import mind_coordinator_pb2 as pb


class Strategy(StrEnum):
    """What becomes of the jobs of a node that is drained."""

    WAIT = "WAIT"
    CHECKPOINT_AND_MOVE = "CHECKPOINT_AND_MOVE"
    FORCE = "FORCE"


def add(app: typer.Typer) -> None:
    """Adds these verbs to the command line."""
    verb(app, 'scaimind drain node-7 --reason "new driver" --deadline 3600')(drain)
    verb(app, "scaimind drains node-7")(drains)


def drain(
    session: Session,
    node_id: NodeId,
    strategy: Annotated[
        Strategy, typer.Option(case_sensitive=False, help="What becomes of its jobs")
    ] = Strategy.WAIT,
    force: Annotated[bool, typer.Option("--force", help="As --strategy FORCE")] = False,
    reason: Annotated[str, typer.Option(help="Why; kept with the node")] = "",
    deadline: Annotated[
        int,
        typer.Option(
            min=0, max=31_536_000, help="Seconds after which its jobs are stopped; 0 never"
        ),
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would happen, and what it costs")
    ] = False,
) -> None:
    """Stops placing jobs on a node; those that run there finish, move or are stopped."""
    answer = session.client.drain(
        node_id,
        strategy=Strategy.FORCE if force else strategy,
        reason=reason,
        deadline_seconds=deadline,
        validate_only=dry_run,
    )
    if answer.HasField("plan"):
        session.show(answer, drained, lambda one: jobs(one.plan), lambda one: plan(one.plan))
    else:
        session.show(answer, drained)


def drains(session: Session, node_id: NodeId) -> None:
    """Shows how the drain of a node goes: its jobs, what it costs, when it is empty."""
    session.show(session.client.get_drain(node_id), jobs, plan)


def drained(answer: "pb.DrainNodeResponse") -> Rows:
    """A node that drains."""
    cells = [(answer.node_id, enum(answer), answer.message)]
    names = ", ".join(answer.running_job_ids)
    return Rows((), cells, note=f"still running there: {names}" if names else "")


def jobs(answer: "pb.DrainPlan") -> Rows:
    """What becomes of each job of a node."""
    cells = [
        (
            job.job_id,
            enum(job, "outcome"),
            f"{job.devices:g}",
            optional_seconds(job, "leaves_p50_seconds"),
            optional_seconds(job, "leaves_p90_seconds"),
            number(job.lost_device_seconds),
            number(job.restart_device_seconds),
            optional_seconds(job, "restart_seconds"),
            " ".join(job.restart_node_ids),
        )
        for job in answer.jobs
    ]
    headers = ("JOB", "OUTCOME", "DEVICES", "LEAVES IN", "AT LATEST", "LOST", "RESTART")
    return Rows((*headers, "GOES ON IN", "ON") if cells else (), cells)


def plan(answer: "pb.DrainPlan") -> Rows:
    """What a drain comes to."""
    cells = [
        ("node", answer.node_id),
        ("strategy", enum(answer, "strategy")),
        ("jobs", str(answer.jobs_count)),
        ("empty in", f"{optional_seconds(answer, 'empty_p50_seconds')} (median)"),
        ("nine in ten", optional_seconds(answer, "empty_p90_seconds")),
        ("lost", f"{number(answer.lost_device_seconds)} device-seconds"),
        ("restart", f"{number(answer.restart_device_seconds)} device-seconds"),
        ("left", f"{number(answer.left_device_seconds)} device-seconds"),
    ]
    return Rows((), cells)
