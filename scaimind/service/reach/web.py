"""Connections to addresses that were checked: a name is looked up once, and never again."""

from __future__ import annotations

import http.client
import socket
import ssl

from scaimind.service.reach import Unreachable
from scaimind.service.reach.guard import Place, Target


class Connection(http.client.HTTPConnection):
    """A connection to one address, whatever the name says."""

    def __init__(self, wanted: Target, place: Place, *, wait_s: float) -> None:
        """Connects at the first request; waits so long for each answer of the other side."""
        super().__init__(wanted.name, wanted.port, timeout=wait_s)
        self._wanted, self._place, self._wait_s = wanted, place, wait_s

    def connect(self) -> None:
        """Connects to the checked address; TLS is still held to the name."""
        sock = socket.socket(self._place.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._wait_s)
            sock.connect(self._place.sockaddr)
            if self._wanted.scheme == "https":
                context = ssl.create_default_context()
                sock = context.wrap_socket(sock, server_hostname=self._wanted.name)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def known_places(wanted: Target) -> list[Place]:
    """Addresses of a service that the administrator named; they may be private.

    Raises:
        Unreachable: there is no such service.
    """
    try:
        found = socket.getaddrinfo(wanted.name, wanted.port, type=socket.SOCK_STREAM)
    except OSError:
        raise Unreachable("the service cannot be reached") from None
    return [Place(one[0], (str(one[4][0]), wanted.port)) for one in found]
