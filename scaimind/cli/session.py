"""What every verb gets: the client, opened when it is first used, and a printer.

`verb` turns a function whose first argument is a Session into a command with --server, --api-key
and --output besides its own options. They may also stand before the verb.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaimind.cli.printer import Format, Rows, print_message, print_rows

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from scaimind.client import Client

RETRY_S = 3.0

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        help="The coordinator (default: MIND_GRPC, else 127.0.0.1:50051)",
        show_default=False,
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        help="Who you are (default: MIND_API_KEY, else the local data directory's admin.key)",
        show_default=False,
    ),
]
Output = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="How to print (default: table)", show_default=False),
]

# These stand before the verb alone: they belong to a place, and are better set once as variables.
TlsCa = Annotated[
    str | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Speak TLS; who may vouch for the coordinator, or `system` (default: MIND_TLS_CA)",
        show_default=False,
    ),
]
TlsCert = Annotated[
    str | None,
    typer.Option(
        "--tls-cert",
        metavar="FILE",
        help="Your certificate, where the coordinator asks for one (default: MIND_TLS_CERT)",
        show_default=False,
    ),
]
TlsKey = Annotated[
    str | None,
    typer.Option(
        "--tls-key",
        metavar="FILE",
        help="Private key of your certificate (default: MIND_TLS_KEY)",
        show_default=False,
    ),
]
TlsName = Annotated[
    str | None,
    typer.Option(
        "--tls-name",
        metavar="NAME",
        help="Name in the coordinator's certificate (default: MIND_TLS_NAME, else its address)",
        show_default=False,
    ),
]

_COMMON: dict[str, Any] = {"server": Server, "api_key": ApiKey, "output": Output}


class Session:
    """One invocation of the command line."""

    def __init__(
        self,
        server: str | None = None,
        api_key: str | None = None,
        *,
        output: Format | None = None,
    ) -> None:
        self.server = server
        self.api_key = api_key
        self.form = output or Format.table
        self.tls: dict[str, str] = {}
        self._client: Client | None = None

    @property
    def client(self) -> "Client":
        """The client; it gives a coordinator that does not answer a few seconds."""
        if self._client is None:
            from scaimind.client import Client, Tls

            tls = replace(Tls.from_environment(), **self.tls)
            self._client = Client(self.server, self.api_key, tls=tls, retry_s=RETRY_S)
            self.server = self._client.server
        return self._client

    def close(self) -> None:
        """Closes the client."""
        if self._client is not None:
            self._client.close()

    def show(self, message: "Message", *tables: Callable[[Any], Rows]) -> None:
        """Prints an answer, for people by `tables`."""
        if self.form is not Format.table:
            print_message(message, self.form)
            return
        for table in tables:
            print_rows(table(message))


def verb(
    app: typer.Typer, example: str, *, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command of `app` from a function whose first argument is the Session."""

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(function).parameters.values()
        extra = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for key, kind in _COMMON.items()
        ]
        first = inspect.Parameter(
            "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
        )
        keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

        def command(context: typer.Context, **options: Any) -> None:
            session = _settle(context.obj, {key: options.pop(key) for key in _COMMON})
            try:
                function(session, **options)
            finally:
                session.close()

        command.__name__ = function.__name__
        command.__doc__ = function.__doc__
        parameters = [first, *keyword, *extra]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        app.command(name, epilog=f"Example: {example}")(command)
        return function

    return wrap


def _settle(session: Session, options: dict[str, Any]) -> Session:
    """The session with the options that stand behind the verb, which win."""
    session.server = options["server"] or session.server
    session.api_key = options["api_key"] or session.api_key
    session.form = options["output"] or session.form
    return session
