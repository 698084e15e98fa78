"""The verbs that stay: logs, metrics and wait, and their exit codes."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaimind.cli import exits, tables
from scaimind.cli.jobs import JobId
from scaimind.cli.printer import (
    COLOURS,
    Format,
    has_colour,
    is_terminal,
    print_event,
    print_message,
)
from scaimind.cli.session import Session, verb
from scaimind.cli.shape import shape
from scaimind.cli.text import clean, duration, number

if TYPE_CHECKING:
    from scaimind.v1.job_pb2 import Job
    from scaimind.v1.stream_pb2 import LogLine, StreamEnd

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends")]
After = Annotated[str, typer.Option(help="Go on after the event with this id")]


def add(app: typer.Typer) -> None:
    """Adds these verbs to the command line."""
    verb(app, "scaimind logs job_01J9 -f --tail 20")(logs)
    verb(app, "scaimind metrics job_01J9 --max-points 20")(metrics)
    verb(app, "scaimind wait job_01J9 --timeout 3600 && echo done")(wait)


def logs(
    session: Session,
    job_id: JobId,
    follow: Follow = False,
    tail: Annotated[
        int, typer.Option(min=-1, max=1_000_000, help="Lines before now; 0 none, -1 all")
    ] = 100,
    level: Annotated[str, typer.Option(help="DEBUG, INFO or WARNING, and above")] = "INFO",
    rank: Annotated[int | None, typer.Option(min=0, help="Only of this rank")] = None,
    after: After = "",
) -> None:
    """Prints a job's log.

    With --follow it ends with the job: exit code 0 if it completed, 1 if not, 6 if the log was cut.
    """
    events = session.client.logs(
        job_id, follow=follow, tail=tail, level=level.upper(), rank=rank, after=after
    )
    print_log(session, events, follows=follow)


def print_log(session: Session, events: Iterator[Any], *, follows: bool) -> None:
    """Prints the events of a log; a follower ends with the job's exit code."""
    for event in events:
        kind = event.WhichOneof("event")
        if session.form is not Format.table:
            _print_event(session, event, kind)
        elif kind == "log":
            _print_line(event.log)
        elif kind == "gap":
            print(f"-- lines are missing here: {event.gap.reason} --", file=sys.stderr)
        if kind == "end" and follows:
            _end(session, event.end)


def _print_line(line: "LogLine") -> None:
    text = clean(line.message)
    if line.rank:
        text = f"[rank {line.rank}] {text}"
    if has_colour() and line.level >= 3:
        colour = "\x1b[33m" if line.level == 3 else "\x1b[31m"
        text = f"{colour}{text}\x1b[0m"
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _print_event(session: Session, event: Any, kind: str | None) -> None:
    if kind is not None:
        body = shape(getattr(event, kind))
        print_event({"id": event.id, "event": kind, **body}, session.form)


def _end(session: Session, end: "StreamEnd") -> None:
    """Ends the verb as the job ended."""
    if session.form is Format.table:
        print(f"-- {tables.enum(end)} --", file=sys.stderr)
    raise typer.Exit(_result(end))


def _result(ended: "Job | StreamEnd") -> int:
    """The exit code for a job that ended so."""
    return exits.OK if tables.enum(ended) == "COMPLETED" else exits.JOB_FAILED


def metrics(
    session: Session,
    job_id: JobId,
    follow: Follow = False,
    max_points: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="At most so many; 0 the coordinator's default")
    ] = 20,
    interval: Annotated[int, typer.Option(min=1, max=60, help="Seconds between, with -f")] = 5,
    after: After = "",
) -> None:
    """Prints a job's metrics.

    With --follow each as it comes, until the job ends; the exit codes are those of logs.
    """
    if not follow:
        answer = session.client.get_metrics(job_id, max_points=max_points)
        session.show(answer, tables.metrics, tables.job_devices)
        return
    for event in session.client.stream_metrics(job_id, interval=interval, after=after):
        kind = event.WhichOneof("event")
        if session.form is not Format.table:
            _print_event(session, event, kind)
        elif kind == "metrics":
            print(clean(tables.point(event.metrics)), flush=True)
        elif kind == "gap":
            print(f"-- points are missing here: {event.gap.reason} --", file=sys.stderr)
        if kind == "end":
            _end(session, event.end)


def wait(
    session: Session,
    job_id: JobId,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Give up after so many seconds (exit code 6)")
    ] = None,
) -> None:
    """Waits for a job's end.

    Shows its progress; exit code 0 if it completed, 1 if not.
    """
    wait_for(session, job_id, timeout_s=timeout)


def wait_for(
    session: Session, job_id: str, *, timeout_s: float | None = None, quiet: bool = False
) -> None:
    """Waits for a job's end; ends the verb with its exit code. `quiet` prints nothing."""
    raise typer.Exit(waited(session, job_id, timeout_s=timeout_s, quiet=quiet))


def waited(
    session: Session, job_id: str, *, timeout_s: float | None = None, quiet: bool = False
) -> int:
    """Waits for a job's end; the exit code for it. `quiet` prints nothing."""
    with _progress(quiet=quiet or session.form is not Format.table) as update:
        job = session.client.wait(job_id, on_update=update, timeout_s=timeout_s)
    if session.form is Format.table:
        status = tables.enum(job)
        fault = f": {job.error.message}" if job.HasField("error") and status == "FAILED" else ""
        print(clean(f"{job.job_id} {status}{fault}"))
    elif not quiet:
        print_message(job, session.form)
    return _result(job)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[["Job"], None]]:
    """Something that shows a job each time that it changes."""
    if quiet:
        yield lambda job: None
    elif is_terminal():
        with _bar() as update:
            yield update
    else:
        yield _lines()


def _lines() -> Callable[["Job"], None]:
    """A line for each new status, and for each further tenth of the way."""
    shown = {"status": -1, "tenth": -1}

    def update(job: "Job") -> None:
        now = {"status": job.status, "tenth": int(job.progress // 10)}
        if now != shown:
            shown.update(now)
            print(clean(f"{tables.enum(job)}  {_facts(job)}"), flush=True)

    return update


@contextmanager
def _bar() -> Iterator[Callable[["Job"], None]]:
    """A progress bar with what the job says of itself."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    facts = TextColumn("{task.fields[facts]}", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), facts)
    console = Console(no_color=not has_colour(), highlight=False)
    with Progress(*columns, console=console, transient=True) as progress:
        line = progress.add_task("", total=100, facts="")

        def update(job: "Job") -> None:
            status = tables.enum(job)
            progress.update(
                line,
                completed=job.progress,
                description=f"[{COLOURS[status]}]{status}[/]" if status in COLOURS else status,
                facts=clean(_facts(job)),
            )

        yield update


def _facts(job: "Job") -> str:
    parts = [f"{job.progress:.0f} %"]
    point = job.latest_metrics
    if job.HasField("latest_metrics"):
        parts.append(f"step {point.step}")
        if "loss" in point.values:
            parts.append(f"loss {number(point.values['loss'])}")
    if job.HasField("eta_seconds"):
        parts.append(f"{duration(job.eta_seconds)} to go")
    elif job.status_reason.message and not job.HasField("latest_metrics"):
        parts.append(job.status_reason.message)
    return "  ".join(parts)
