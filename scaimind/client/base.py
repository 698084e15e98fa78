"""What both clients share: their settings, and how a function of `calls` becomes a method."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from scaimind.channel import Tls
from scaimind.client.connection import CHANNEL_OPTIONS, credentials, find_api_key, find_server
from scaimind.client.errors import InvalidArgument

DEFAULT_TIMEOUT_S = 30.0
DEFAULT_RETRY_S = 10.0
DEFAULT_RECONNECT_S = 60.0

C = TypeVar("C")
P = ParamSpec("P")


class Caller:
    """Settings of a client.

    `tls` says how to speak TLS; by default the variables MIND_TLS_CA, MIND_TLS_CERT, MIND_TLS_KEY and
    MIND_TLS_NAME do.
    `timeout_s` is the deadline of a call with all its repetitions; `retry_s` how long a call is
    repeated while the coordinator is UNAVAILABLE; `reconnect_s` how long a stream may be out of
    contact. All in seconds.
    """

    def __init__(
        self,
        server: str | None = None,
        api_key: str | None = None,
        *,
        tls: Tls | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry_s: float = DEFAULT_RETRY_S,
        reconnect_s: float = DEFAULT_RECONNECT_S,
    ) -> None:
        self.server = find_server(server)
        self._metadata = credentials(find_api_key(api_key, self.server))
        self._tls = Tls.from_environment() if tls is None else tls
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._reconnect_s = reconnect_s

    def _open(self, opener: Callable[..., Any]) -> Any:
        """The channel that an opener of scaimind.channel makes."""
        try:
            return opener(self.server, CHANNEL_OPTIONS, tls=self._tls)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error


def method(
    build: Callable[P, Any], act: Callable[[C, Any], Any]
) -> Callable[Concatenate[C, P], Any]:
    """A method with the arguments of `build` that makes a call by it and does it by `act`."""

    @functools.wraps(build)
    def call(self: C, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            made = build(*args, **kwargs)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        return act(self, made)

    signature = inspect.signature(build)
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [this, *signature.parameters.values()]
    shown = signature.replace(parameters=parameters, return_annotation=signature.empty)
    call.__signature__ = shown  # type: ignore[attr-defined]
    return call
