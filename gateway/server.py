"""The gateway under uvicorn: sockets, and going down in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

import uvicorn

from gateway.app import Gateway

BACKLOG = 2048


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
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        ws="none",
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
