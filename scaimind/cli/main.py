"""The entry point: the verbs together, errors in words, exit codes."""

import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer

from scaimind.cli import (
    cluster,
    data,
    drains,
    exits,
    health,
    jobs,
    keys,
    simulate,
    submit,
    usage,
    watch,
)
from scaimind.cli.session import (
    ApiKey,
    Output,
    Server,
    Session,
    TlsCa,
    TlsCert,
    TlsKey,
    TlsName,
)
from scaimind.cli.text import clean
from scaimind.cli.up import verb


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"scaimind {metadata.version('mindcoordinator')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="What is installed.", is_eager=True, callback=_tell_version),
]

SUMMARY = """Schedules training jobs across GPU nodes.

Exit codes: 0 ok, 1 job failed, 2 usage, 3 not found, 4 denied, 5 wrong state, 6 unavailable,
130 interrupted.
"""


def build() -> typer.Typer:
    """The command line."""
    app = typer.Typer(
        name="scaimind",
        help=SUMMARY,
        epilog="Example: scaimind up & scaimind submit job.yaml -f",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        # Plain help: loading rich for it would take longer than everything else.
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def common(
        context: typer.Context,
        server: Server = None,
        api_key: ApiKey = None,
        output: Output = None,
        tls_ca: TlsCa = None,
        tls_cert: TlsCert = None,
        tls_key: TlsKey = None,
        tls_name: TlsName = None,
        version: Version = False,
    ) -> None:
        session: Session = context.obj
        tls = {"ca": tls_ca, "cert": tls_cert, "key": tls_key, "name": tls_name}
        session.tls = {name: value for name, value in tls.items() if value}
        session.server, session.api_key = server, api_key
        session.form = output or session.form

    verb.add(app)
    for room in (submit, jobs, watch, cluster, drains, health, simulate, usage, data, keys):
        room.add(app)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    session = Session()
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv), session)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as `head` does; nothing may be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return exits.OK
    return code


def _run(argv: list[str], session: Session) -> int:
    command = typer.main.get_command(build())
    try:
        code = command.main(argv, prog_name="scaimind", standalone_mode=False, obj=session)
    except exits.Fault as fault:
        return exits.report_fault(fault)
    except typer.Abort:
        return exits.INTERRUPTED
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None  # which click would make the exit code of a failed job
        raise
    except Exception as error:
        return _report(error, session)
    return code if isinstance(code, int) else exits.OK


def _report(error: Exception, session: Session) -> int:
    """What went wrong in a line; a traceback helps nobody at a prompt."""
    shown = getattr(error, "format_message", None)
    if shown is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(shown(), file=sys.stderr)  # no verb was given: all the help, as it is
        return exits.USAGE
    if shown is not None:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "scaimind"
        fault = exits.Fault(shown(), hint=f"`{path} --help` shows an example")
        return exits.report_fault(fault)
    if "scaimind.client" in sys.modules:
        from scaimind.client import MindError

        if isinstance(error, MindError):
            return exits.report_error(error, session.server or "")
    if isinstance(error, BrokenPipeError):
        raise error
    print(clean(f"error: {type(error).__name__}: {error}"), file=sys.stderr)
    print("hint: this is a fault of the command line itself; please report it", file=sys.stderr)
    return exits.UNAVAILABLE
