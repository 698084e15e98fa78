"""The gateway under uvicorn: sockets, and going down in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.app import Gateway

BACKLOG = 2048
MAX_HEAD = 65_536
HEAD_WITHIN_S = 20.0
# Longer than a balancer's usual 60 s: who closes an idle connection first must not be us, as the
# balancer may just be sending a request over it.
IDLE_S = 75


class Connection(HttpToolsProtocol):
    """uvicorn's connection with bounds on the head of a request, in bytes and in time; it has
    none itself."""

    _head_bytes = 0
    _in_head = True
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for the first head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_WITHIN_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on, unless the head has become too long."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_WITHIN_S, self.transport.close)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._stop_timer()
        super().on_headers_complete()
        self._in_head, self._head_bytes = False, 0

    def on_message_complete(self) -> None:
        """What comes next is a head again."""
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """uvicorn, but streams are ended before it waits for open requests."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        """Takes the application again, to end its streams."""
        super().__init__(config)
        self._gateway = gateway

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Going down by a signal is an ordinary end; uvicorn would raise it again afterwards."""
        loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        if threading.current_thread() is threading.main_thread():
            for number in signals:
                loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the streams, then what is left."""
        self._gateway.end_streams()
        await super().shutdown(sockets)


def server(gateway: Gateway, *, shutdown_s: float) -> Server:
    """A server for the application; it has an access log of its own and trusts no proxy."""
    config = uvicorn.Config(
        gateway,
        http=Connection,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=max(1, round(shutdown_s)),
    )
    return Server(config, gateway)


def listen(host: str, port: int, *, send_timeout_s: float) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Connections whose peer acknowledges nothing for `send_timeout_s` are dropped by the kernel,
    where it can: closing alone would wait for a frozen reader to take the rest.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(AttributeError, OSError):
            timeout_ms = round(send_timeout_s * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
