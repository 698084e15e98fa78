"""The verb `submit`: one job, or all jobs of several files in one call and one commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from scaimind.cli import exits, jobfile, tables, watch
from scaimind.cli.jobfile import JobFile
from scaimind.cli.lines import steps
from scaimind.cli.printer import Format
from scaimind.cli.session import Session, verb

if TYPE_CHECKING:
    from scaimind.client.errors import FieldError
    from scaimind.v1 import mind_coordinator_pb2 as pb

JOBS_MAX = 1000

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...", help="Job files (YAML or JSON), - for standard input", show_default=False
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a field, such as resource_config.gpu_count=2"
    ),
]


def add(app: typer.Typer) -> None:
    """Adds the verb to the command line."""
    verb(app, "scaimind submit job.yaml --set resource_config.gpu_count=2 -f")(submit)


def submit(
    session: Session,
    files: Files,
    sets: Sets = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, show progress")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow its log")] = False,
    atomic: Annotated[bool, typer.Option("--atomic", help="All of them or none")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check; nothing is accepted")
    ] = False,
) -> None:
    """Submits a job, or several at once.

    A file may hold several jobs, parted by ---. A relative script or data path is looked for
    beside the job file. With --wait or --follow the exit code is 0 only if the job completes.
    """
    found = jobfile.read_all(files, sets or [])
    if len(found) > JOBS_MAX:
        exits.fail(f"{len(found)} jobs are too many for one call; {JOBS_MAX} are the most")
    if len(found) == 1 and not atomic:
        _one(session, found[0], wait=wait, follow=follow, dry_run=dry_run)
    elif follow:
        exits.fail("--follow shows one log; submit one job, or use --wait")
    else:
        _several(session, found, wait=wait, atomic=atomic, dry_run=dry_run)


def _one(session: Session, job: JobFile, *, wait: bool, follow: bool, dry_run: bool) -> None:
    [request] = _requests([job])
    with _located([job]):
        answer = session.client.submit(request, validate_only=dry_run)
    session.show(answer, tables.submitted)
    if follow and not dry_run:
        watch.print_log(session, session.client.logs(answer.job_id, tail=-1), follows=True)
    elif wait and not dry_run:
        watch.wait_for(session, answer.job_id, quiet=session.form is not Format.table)


def _several(
    session: Session, found: list[JobFile], *, wait: bool, atomic: bool, dry_run: bool
) -> None:
    requests = _requests(found)
    for request in requests:
        request.validate_only = dry_run
    with _located(found):
        answer = session.client.submit_batch(requests, atomic=atomic)
    _settle_places(answer, found)
    session.show(answer, tables.batch([f"{job.name}:{job.line}" for job in found]))
    codes = [_exit_code(result) for result in answer.results]
    if wait and not dry_run:
        quiet = session.form is not Format.table
        accepted = [each.job.job_id for each in answer.results if each.HasField("job")]
        codes += [watch.waited(session, job_id, quiet=quiet) for job_id in accepted]
    failed = [code for code in codes if code]
    if failed:
        raise typer.Exit(failed[0])


def _requests(found: list[JobFile]) -> "list[pb.SubmitJobRequest]":
    """The requests; every fault of every job is told, with its line.

    Raises:
        InvalidArgument: a body does not fit the schema.
    """
    from scaimind.client.body import to_message
    from scaimind.client.errors import InvalidArgument
    from scaimind.v1 import mind_coordinator_pb2 as pb

    requests, faults = [], []
    for job in found:
        try:
            requests.append(to_message(job.body, pb.SubmitJobRequest()))
        except InvalidArgument as error:
            faults += [_placed(fault, job) for fault in error.details]
    if faults:
        several = f"{len(found)} jobs do" if len(found) > 1 else "the job does"
        raise InvalidArgument(f"{several} not fit the schema", details=faults)
    return requests


@contextmanager
def _located(found: list[JobFile]) -> Iterator[None]:
    """Adds the line of each field that the coordinator finds at fault."""
    from scaimind.client.errors import InvalidArgument

    try:
        yield
    except InvalidArgument as error:
        error.details = tuple(_placed(fault, *_owner(fault, found)) for fault in error.details)
        raise


def _owner(fault: "FieldError", found: list[JobFile]) -> tuple[JobFile, str]:
    """The job that a fault is about, and the field within it: a batch says `jobs[2].name`."""
    path = steps(fault.field)
    if len(path) > 1 and path[0] == "jobs" and isinstance(path[1], int) and path[1] < len(found):
        return found[path[1]], fault.field.partition("].")[2]
    return found[0], fault.field


def _placed(fault: "FieldError", job: JobFile, field: str | None = None) -> "FieldError":
    inner = fault.field if field is None else field
    place = job.place(inner)
    return fault._replace(field=f"{place}: {inner}" if inner else place)


def _settle_places(answer: "pb.BatchSubmitJobsResponse", found: list[JobFile]) -> None:
    """Says where the fields at fault stand, in the coordinator's own message."""
    for result, job in zip(answer.results, found, strict=False):
        for detail in result.error.details:
            detail.field = f"{job.place(detail.field)}: {detail.field}"


def _exit_code(result: "pb.BatchResult") -> int:
    if not result.HasField("error"):
        return exits.OK
    return exits.UNAVAILABLE if result.error.code in exits.LATER else exits.USAGE
