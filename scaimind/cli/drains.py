"""The verbs that empty nodes: drain, rolling-drain, drains, cancel-drain."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from scaimind.cli.complete import NodeId
from scaimind.cli.exits import fail
from scaimind.cli.printer import Rows
from scaimind.cli.session import Session, verb
from scaimind.cli.tables import enum
from scaimind.cli.text import number, optional_seconds

if TYPE_CHECKING:
    from scaimind.v1 import mind_coordinator_pb2 as pb


ROLLING = "drain_"


FORMATS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]


class Strategy(StrEnum):
    """What becomes of the jobs of a node that is drained."""

    WAIT = "WAIT"
    CHECKPOINT_AND_MOVE = "CHECKPOINT_AND_MOVE"
    FORCE = "FORCE"


def add(app: typer.Typer) -> None:
    """Adds these verbs to the command line."""
    verb(app, 'scaimind drain node-7 --reason "new driver" --deadline 3600')(drain)
    verb(app, "scaimind rolling-drain --label rack=r7 --max-unavailable 2 --until-enabled")(
        rolling_drain
    )
    verb(app, "scaimind drains node-7")(drains)
    verb(app, "scaimind cancel-drain drain_01J9")(cancel_drain)


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
    starts_at: Annotated[
        datetime | None,
        typer.Option(
            formats=FORMATS, help="Maintenance: drain it from then on, as 2026-12-01T02:00"
        ),
    ] = None,
    ends_at: Annotated[
        datetime | None, typer.Option(formats=FORMATS, help="Maintenance: enable it again then")
    ] = None,
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
        starts_at=starts_at,
        ends_at=ends_at,
        validate_only=dry_run,
    )
    if answer.HasField("plan"):
        session.show(answer, drained, lambda one: jobs(one.plan), lambda one: plan(one.plan))
    else:
        session.show(answer, drained)


def rolling_drain(
    session: Session,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="KEY=VALUE", help="Only nodes with it"),
    ] = None,
    max_unavailable: Annotated[int, typer.Option(min=1, help="Nodes out at once")] = 1,
    strategy: Annotated[
        Strategy, typer.Option(case_sensitive=False, help="What becomes of their jobs")
    ] = Strategy.CHECKPOINT_AND_MOVE,
    until_enabled: Annotated[
        bool,
        typer.Option("--until-enabled", help="A node is out until it is enabled, not only empty"),
    ] = False,
    reason: Annotated[str, typer.Option(help="Why; kept with the nodes")] = "",
    deadline: Annotated[
        int, typer.Option(min=0, max=31_536_000, help="Seconds for each node; 0 is no limit")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell which nodes")] = False,
) -> None:
    """Drains nodes a few at a time, by name; it goes on by itself."""
    answer = session.client.start_rolling_drain(
        labels=dict(map(_label, label or ())),
        max_unavailable=max_unavailable,
        strategy=strategy,
        until_enabled=until_enabled,
        reason=reason,
        deadline_seconds=deadline,
        validate_only=dry_run,
    )
    session.show(answer, rolling)


def drains(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="[NODE|DRAIN]", help="Default: all rolling drains")
    ] = "",
) -> None:
    """Shows how drains go: jobs left, what it costs, when a node is empty."""
    if not name:
        session.show(session.client.list_rolling_drains(), lambda all: rolling(*all.drains))
    elif name.startswith(ROLLING):
        answer = session.client.rolling_drain(name)
        session.show(answer, rolling, lambda one: nodes(*one.nodes))
    else:
        session.show(session.client.get_drain(name), jobs, plan)


def cancel_drain(
    session: Session,
    drain_id: Annotated[str, typer.Argument(metavar="DRAIN", show_default=False)],
) -> None:
    """Has a rolling drain take no more nodes; those that are out stay drained."""
    session.show(session.client.cancel_rolling_drain(drain_id), rolling)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        fail(f"--label {text}: must be KEY=VALUE, such as rack=r7")
    return key, value


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


def rolling(*drains: "pb.RollingDrain") -> Rows:
    """One line for each rolling drain."""
    cells = [
        (
            one.drain_id or "none yet",
            enum(one),
            " ".join(one.label) or "every node",
            enum(one, "strategy"),
            f"{one.max_unavailable} at once",
            str(one.taken_count),
            f"{one.waiting_count}: {' '.join(one.waiting_node_ids)}" if one.waiting_count else "",
            " ".join(one.out_node_ids),
        )
        for one in drains
    ]
    headers = ("DRAIN", "STATUS", "NODES", "STRATEGY", "OUT", "TAKEN", "TO TAKE", "OUT NOW")
    return Rows(headers if cells else (), cells, note="" if cells else "no rolling drains")


def nodes(*plans: "pb.DrainPlan") -> Rows:
    """One line for each node that is emptied."""
    cells = [
        (
            one.node_id,
            str(one.jobs_count),
            optional_seconds(one, "empty_p50_seconds"),
            optional_seconds(one, "empty_p90_seconds"),
            number(one.lost_device_seconds),
            number(one.left_device_seconds),
        )
        for one in plans
    ]
    headers = ("NODE", "JOBS", "EMPTY IN", "NINE IN TEN", "LOST", "LEFT")
    return Rows(headers if cells else (), cells)
