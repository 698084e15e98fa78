"""The verb that tells what leased devices were used for."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from scaimind.cli import moments
from scaimind.cli.printer import Rows
from scaimind.cli.session import Session, verb
from scaimind.cli.text import number

if TYPE_CHECKING:
    from scaimind.v1 import job_pb2
    from scaimind.v1 import mind_coordinator_pb2 as pb

HOUR_US = 3_600_000_000
CLASSES = ("productive", "starting", "checkpointing", "redone", "idle", "paused")


class By(StrEnum):
    """By what usage is summed."""

    JOB = "JOB"
    USER = "USER"
    QUEUE = "QUEUE"
    NODE = "NODE"
    TENANT = "TENANT"
    CAUSE = "CAUSE"


class Class(StrEnum):
    """What devices were used for."""

    LEASED = "leased"
    STARTING = "starting"
    PRODUCTIVE = "productive"
    CHECKPOINTING = "checkpointing"
    REDONE = "redone"
    IDLE = "idle"
    PAUSED = "paused"


def add(app: typer.Typer) -> None:
    """Adds this verb to the command line."""
    verb(app, "scaimind usage --by CAUSE --since 7d --order redone")(usage)


def usage(
    session: Session,
    by: Annotated[By, typer.Option(case_sensitive=False, help="By what to sum")] = By.USER,
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="From the day (UTC) of: 7d ago, or 2026-03-01")
    ] = "30d",
    until: Annotated[
        str, typer.Option(metavar="WHEN", help="Up to the end of that day (UTC); default now")
    ] = "",
    order: Annotated[Class, typer.Option(case_sensitive=False, help="Who has most of it")] = (
        Class.LEASED
    ),
    tenant: Annotated[str, typer.Option(help="Only of this tenant")] = "",
    user: Annotated[str, typer.Option(help="Only of this user")] = "",
    queue: Annotated[str, typer.Option(help="Only in this queue")] = "",
    node: Annotated[str, typer.Option(help="Only on this node")] = "",
    job: Annotated[str, typer.Option(help="Only of this job")] = "",
    page_size: Annotated[int, typer.Option(min=1, max=1000, help="Lines a page")] = 100,
    page_token: Annotated[str, typer.Option(help="Of the page before")] = "",
) -> None:
    """Tells what leased devices were used for, in device-hours: those with most first.

    Redone is work that was lost when its job was preempted, drained, paused or failed.
    """
    page = session.client.usage_page(
        group_by=by.value,
        start_time=moments.moment(since, option="--since"),
        **({"end_time": moments.moment(until, option="--until")} if until else {}),
        order_by=order.value,
        tenant_id=tenant,
        user_id=user,
        queue_name=queue,
        node_id=node,
        job_id=job,
        page_size=page_size,
        page_token=page_token,
    )
    session.show(page, lambda one: table(one, by))


def table(page: "pb.GetUsageResponse", by: By) -> Rows:
    """One line for each group, then their sum."""
    several = len({group.tenant_id for group in page.groups}) > 1
    cells = [
        (_name(group.tenant_id if several else "", group.key), *_hours(group.time))
        for group in page.groups
    ]
    cells.append(("all", *_hours(page.total)))
    days = f"{page.start_time.ToJsonString()[:10]} to {page.end_time.ToJsonString()[:10]}, midnight"
    note = f"device-hours, {days}"
    if page.next_page_token:
        shown = f"{len(page.groups)} of {page.total_count}"
        note = f"{note}; {shown}: go on with --page-token {page.next_page_token}"
    return Rows((by.value, "LEASED", *map(str.upper, CLASSES)), cells, note=note)


def _name(tenant_id: str, key: str) -> str:
    return f"{tenant_id}/{key}" if tenant_id and tenant_id != key else key or "none"


def _hours(time: "job_pb2.DeviceTime") -> list[str]:
    amounts = [time.leased_us, *(getattr(time, f"{name}_us") for name in CLASSES)]
    return [number(amount / HOUR_US) if amount else "" for amount in amounts]
