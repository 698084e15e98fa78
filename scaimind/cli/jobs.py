"""The verbs about jobs."""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaimind.cli import complete, jobfile, moments, tables
from scaimind.cli.exits import fail
from scaimind.cli.session import Session, verb

if TYPE_CHECKING:
    from scaimind.client.calls import JobChanges
    from scaimind.v1.job_pb2 import Job
    from scaimind.v1.mind_coordinator_pb2 import ListJobsResponse

PIECES_MAX = 20  # calls for the rest of one page

JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="The job's id",
        show_default=False,
        autocompletion=complete.job_ids,
    ),
]
Statuses = Annotated[
    list[str] | None, typer.Option("--status", help="Only this status; may be repeated")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Only with it")
]
Since = Annotated[
    str,
    typer.Option(metavar="WHEN", help="Only those submitted since: 2h ago, or 2026-03-01T09:30"),
]
Priority = Annotated[
    int | None, typer.Option(min=0, max=10, help="Higher goes first", show_default=False)
]
ToQueue = Annotated[
    str | None, typer.Option(metavar="QUEUE", help="The queue to wait in", show_default=False)
]
MaxRuntime = Annotated[
    str, typer.Option(metavar="PERIOD", help="How long it may run: 12h; 0 is no limit")
]
Expected = Annotated[
    str, typer.Option(metavar="PERIOD", help="How long it is expected to run: 40m; 0 is not known")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only check; nothing is accepted")]


class Action(StrEnum):
    """What to do to all jobs that match."""

    cancel = "cancel"
    pause = "pause"
    resume = "resume"
    update = "update"


class OnTimeout(StrEnum):
    """What a pause does when no checkpoint was saved in time."""

    keep_running = "keep_running"
    use_latest = "use_latest"
    stop = "stop"


def add(app: typer.Typer) -> None:
    """Adds these verbs to the command line."""
    verb(app, "scaimind jobs --status TRAINING --label team=nlp --since 2h")(jobs)
    verb(app, "scaimind job job_01J9 -o json")(job)
    verb(app, "scaimind pause job_01J9 --timeout 600 --on-timeout use_latest")(pause)
    verb(app, "scaimind resume job_01J9")(resume)
    verb(app, 'scaimind cancel job_01J9 --reason "wrong data"')(cancel)
    verb(app, "scaimind retry job_01J9 --set gpu_count=4")(retry)
    verb(app, "scaimind update job_01J9 --priority 9 --max-runtime 12h")(update)
    verb(app, "scaimind bulk cancel --label sweep=17 --dry-run")(bulk)
    verb(app, "scaimind explain job_01J9")(explain)


def jobs(
    session: Session,
    status: Statuses = None,
    label: Labels = None,
    queue: Annotated[str, typer.Option(help="Only this queue")] = "",
    parent: Annotated[str, typer.Option(metavar="JOB", help="Only retries of this job")] = "",
    since: Since = "",
    name: Annotated[str, typer.Option(metavar="PREFIX", help="Only names that begin so")] = "",
    order_by: Annotated[str, typer.Option(help="Such as `priority desc` or `name asc`")] = "",
    page_size: Annotated[int, typer.Option(min=1, max=100, help="Jobs a page")] = 20,
    page_token: Annotated[str, typer.Option(help="Of the page before")] = "",
) -> None:
    """Lists jobs, the newest first."""
    ask = partial(
        session.client.jobs_page,
        status=[each.upper() for each in status or ()],
        label=label or (),
        queue_name=queue,
        parent_job_id=parent,
        created_after=moments.moment(since, option="--since") if since else None,
        name_prefix=name,
        order_by=order_by,
    )
    session.show(filled(ask, page_size=page_size, page_token=page_token), tables.jobs)


def filled(
    ask: "Callable[..., ListJobsResponse]", *, page_size: int, page_token: str
) -> "ListJobsResponse":
    """A page; where few match several filters the service gives it in pieces."""
    page = ask(page_size=page_size, page_token=page_token)
    for _ in range(PIECES_MAX):
        if not page.next_page_token or len(page.jobs) >= page_size:
            break
        more = ask(page_size=page_size - len(page.jobs), page_token=page.next_page_token)
        page.jobs.extend(more.jobs)
        page.next_page_token = more.next_page_token
    return page


def job(session: Session, job_id: JobId) -> None:
    """Shows one job."""
    session.show(session.client.get_job(job_id), tables.job)


def pause(
    session: Session,
    job_id: JobId,
    checkpoint: Annotated[bool, typer.Option(help="Save a checkpoint first")] = True,
    timeout: Annotated[
        int,
        typer.Option(
            min=0, max=604_800, help="Seconds for the checkpoint; 0 as the job was submitted"
        ),
    ] = 0,
    on_timeout: Annotated[
        OnTimeout, typer.Option(help="What happens when they are over", case_sensitive=False)
    ] = OnTimeout.keep_running,
) -> None:
    """Holds a job; a running one once its checkpoint is saved.

    Where none is saved in time it runs on (keep_running), is held on its newest one (use_latest),
    or at once (stop), which loses what was done since.
    """
    if not checkpoint and (timeout or on_timeout is not OnTimeout.keep_running):
        fail("--no-checkpoint waits for nothing: --timeout and --on-timeout go with a checkpoint")
    answer = session.client.pause(
        job_id,
        save_checkpoint=checkpoint,
        checkpoint_timeout_seconds=timeout,
        on_timeout=on_timeout.name.upper(),
    )
    session.show(answer, tables.acted)


def resume(
    session: Session,
    job_id: JobId,
    checkpoint_id: Annotated[str, typer.Option("--checkpoint", help="Default: the newest")] = "",
) -> None:
    """Queues a paused job again."""
    session.show(session.client.resume(job_id, checkpoint_id=checkpoint_id), tables.acted)


def cancel(
    session: Session,
    job_id: JobId,
    reason: Annotated[str, typer.Option(help="Why; kept with the job")] = "",
) -> None:
    """Cancels a job; its processes may still save what they have."""
    session.show(session.client.cancel(job_id, reason=reason), tables.acted)


def retry(
    session: Session,
    job_id: JobId,
    checkpoint_id: Annotated[str, typer.Option("--checkpoint", help="Default: the newest")] = "",
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a resource, such as gpu_count=4"),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Starts a failed job again.

    A failed or preempted job gets a child, from its newest checkpoint; it stays as it is itself.
    """
    resources = _changed(session.client.get_job(job_id), sets) if sets else None
    answer = session.client.retry(
        job_id,
        new_resource_config=resources,
        checkpoint_id=checkpoint_id,
        validate_only=dry_run,
    )
    session.show(answer, tables.retried)


def _changed(job: "Job", sets: list[str]) -> dict[str, Any]:
    from scaimind.cli.shape import shape

    resources = shape(job.resource_config)
    for each in sets:
        jobfile.assign(resources, each)
    return resources


def update(
    session: Session,
    job_id: JobId,
    *,
    priority: Priority = None,
    to_queue: ToQueue = None,
    max_runtime: MaxRuntime = "",
    expected_duration: Expected = "",
    dry_run: DryRun = False,
) -> None:
    """Changes a job while it lives.

    One that waits stands in line anew; one that runs goes on.
    """
    changes = _changes(priority, to_queue, max_runtime=max_runtime, expected=expected_duration)
    if not changes:
        fail("nothing to change: give --priority, --to-queue, --max-runtime or --expected-duration")
    answer = session.client.update(job_id, validate_only=dry_run, **changes)
    session.show(answer, tables.acted)


def bulk(
    session: Session,
    action: Annotated[Action, typer.Argument(help="What to do to them", show_default=False)],
    status: Statuses = None,
    label: Labels = None,
    queue: Annotated[str, typer.Option(help="Only this queue")] = "",
    name: Annotated[str, typer.Option(metavar="PREFIX", help="Only names that begin so")] = "",
    priority: Priority = None,
    to_queue: ToQueue = None,
    max_runtime: MaxRuntime = "",
    expected_duration: Expected = "",
    dry_run: DryRun = False,
) -> None:
    """Cancels, pauses, resumes or updates all jobs that match.

    Up to 1,000 at once, all in one step; each has an outcome of its own. With --dry-run it only tells
    which they are.
    """
    changes = _changes(priority, to_queue, max_runtime=max_runtime, expected=expected_duration)
    if bool(changes) != (action is Action.update):
        fail(
            "--priority, --to-queue, --max-runtime and --expected-duration go with update, which"
            " needs one of them"
        )
    answer = session.client.act_on_jobs(
        action.name.upper(),
        status=[each.upper() for each in status or ()],
        label=label or (),
        queue_name=queue,
        name_prefix=name,
        update=changes or None,
        validate_only=dry_run,
    )
    session.show(answer, tables.acted_on)


def _changes(
    priority: int | None, to_queue: str | None, *, max_runtime: str, expected: str
) -> "JobChanges":
    changes: JobChanges = {}
    if priority is not None:
        changes["priority"] = priority
    if to_queue is not None:
        changes["queue_name"] = to_queue
    if max_runtime:
        changes["max_runtime_seconds"] = moments.seconds(max_runtime, option="--max-runtime")
    if expected:
        seconds = moments.seconds(expected, option="--expected-duration")
        changes["expected_duration_seconds"] = seconds
    return changes


def explain(session: Session, job_id: JobId) -> None:
    """Tells why a job waits.

    When it will start, and what would make it start sooner.
    """
    session.show(session.client.explain(job_id), tables.explanation)
