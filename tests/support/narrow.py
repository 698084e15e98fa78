"""A way to a server that lets so many bytes through and no more, until it is opened."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

PIECE = 16_384


class Narrow:
    """Stands before a TCP server. Use it as a context manager.

    Attributes:
        address: where it listens.
        stuck: set once something waits because `most_bytes` were sent to the server.
    """

    def __init__(self, host: str, port: int, *, most_bytes: int) -> None:
        self._behind = host, port
        self._left = most_bytes
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self.stuck = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.open()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def open(self) -> None:
        """Lets everything through from now on."""
        self._opened.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._behind) as server:
            answers = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
            answers.start()
            self._pass_on(client, server, is_counted=True)
            answers.join()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, *, is_counted: bool = False
    ) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE):
                if is_counted:
                    self._wait(len(data))
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _wait(self, count: int) -> None:
        with self._lock:
            self._left -= count
            is_over = self._left < 0
        if is_over and not self._opened.is_set():
            self.stuck.set()
            self._opened.wait()
