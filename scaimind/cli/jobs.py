"""The verbs about jobs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaimind.cli import jobfile, tables, watch
from scaimind.cli.printer import Format
from scaimind.cli.session import Session, verb

if TYPE_CHECKING:
    from scaimind.v1.job_pb2 import Job

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a field, such as resource_config.gpu_count=2"
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only check; nothing is accepted")]


def add(app: typer.Typer) -> None:
    """Adds these verbs to the command line."""
    verb(app, "scaimind submit job.yaml --set resource_config.gpu_count=2 -f")(submit)
    verb(app, "scaimind jobs --status TRAINING --label team=nlp")(jobs)
    verb(app, "scaimind job job_01J9 -o json")(job)
    verb(app, "scaimind pause job_01J9")(pause)
    verb(app, "scaimind resume job_01J9")(resume)
    verb(app, 'scaimind cancel job_01J9 --reason "wrong data"')(cancel)
    verb(app, "scaimind retry job_01J9 --set gpu_count=4")(retry)
    verb(app, "scaimind explain job_01J9")(explain)


def submit(
    session: Session,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Job file (YAML or JSON), - for standard input")
    ],
    sets: Sets = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, show progress")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow its log")] = False,
    dry_run: DryRun = False,
) -> None:
    """Submits a job.

    A relative script or data path is looked for beside the job file. With --wait or --follow the
    exit code is 0 only if the job completes.
    """
    body = jobfile.read(file, sets or [])
    answer = session.client.submit(body, validate_only=dry_run)
    session.show(answer, tables.submitted)
    if dry_run:
        return
    if follow:
        watch.print_log(session, session.client.logs(answer.job_id, tail=-1), follows=True)
    elif wait:
        watch.wait_for(session, answer.job_id, quiet=session.form is not Format.table)


def jobs(
    session: Session,
    status: Annotated[
        list[str] | None, typer.Option("--status", help="Only this status; may be repeated")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Only with it")
    ] = None,
    order_by: Annotated[str, typer.Option(help="Such as `priority desc` or `name asc`")] = "",
    page_size: Annotated[int, typer.Option(min=1, max=100, help="Jobs a page")] = 20,
    page_token: Annotated[str, typer.Option(help="Of the page before")] = "",
) -> None:
    """Lists jobs, the newest first."""
    page = session.client.jobs_page(
        status=[each.upper() for each in status or ()],
        label=label or (),
        order_by=order_by,
        page_size=page_size,
        page_token=page_token,
    )
    session.show(page, tables.jobs)


def job(session: Session, job_id: JobId) -> None:
    """Shows one job."""
    session.show(session.client.get_job(job_id), tables.job)


def pause(
    session: Session,
    job_id: JobId,
    checkpoint: Annotated[bool, typer.Option(help="Save a checkpoint first")] = True,
) -> None:
    """Holds a job; a running one once its checkpoint is saved."""
    session.show(session.client.pause(job_id, save_checkpoint=checkpoint), tables.acted)


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


def explain(session: Session, job_id: JobId) -> None:
    """Tells why a job waits.

    When it will start, and what would make it start sooner.
    """
    session.show(session.client.explain(job_id), tables.explanation)
