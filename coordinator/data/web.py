"""Reads http(s): connects to an address that was checked, follows no redirect, takes plain content only."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping, Sequence

from coordinator.data.guard import Network, Place, Target, places, target
from coordinator.data.reading import Budget, Reading
from coordinator.data.terms import Unreachable

WAIT_S = 5.0  # for a connection, and for each piece
SAYS = {
    401: "access is denied there",
    403: "access is denied there",
    404: "there is no such file",
    410: "there is no such file",
}


class _Connection(http.client.HTTPConnection):
    """A connection to one address, whatever the name says."""

    def __init__(self, wanted: Target, place: Place) -> None:
        super().__init__(wanted.name, wanted.port, timeout=WAIT_S)
        self._wanted, self._place = wanted, place

    def connect(self) -> None:
        """Connects to the checked address; TLS is still held to the name."""
        sock = socket.socket(self._place.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(WAIT_S)
            sock.connect(self._place.sockaddr)
            if self._wanted.scheme == "https":
                context = ssl.create_default_context()
                sock = context.wrap_socket(sock, server_hostname=self._wanted.name)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class _Body:
    """The content of an answer, with the connection that it comes by."""

    def __init__(self, connection: _Connection, answer: http.client.HTTPResponse) -> None:
        self._connection, self._answer = connection, answer

    def read(self, size: int, /) -> bytes:
        """At most so many bytes, as they come."""
        try:
            piece = self._answer.read1(size)
        except (OSError, http.client.HTTPException, ValueError):
            raise Unreachable("the connection broke") from None
        if not piece and self._answer.length:
            raise Unreachable("the connection broke")
        return piece

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def open_public(
    url: str,
    budget: Budget,
    *,
    allowed: Sequence[Network],
    headers: Mapping[str, str] | None = None,
) -> Reading:
    """Opens a URL that a caller gave. Raises Unreachable."""
    wanted = target(url)
    return _open(wanted, places(wanted, allowed), budget, headers=headers or {})


def open_trusted(url: str, budget: Budget, *, headers: Mapping[str, str]) -> Reading:
    """Opens a URL of a service that the administrator named; its address may be private.

    Raises:
        Unreachable: it cannot be read, or there is no such service.
    """
    wanted = target(url)
    try:
        found = socket.getaddrinfo(wanted.name, wanted.port, type=socket.SOCK_STREAM)
    except OSError:
        raise Unreachable("the service cannot be reached") from None
    known = [Place(one[0], (str(one[4][0]), wanted.port)) for one in found]
    return _open(wanted, known, budget, headers=headers)


def _open(
    wanted: Target, known: Sequence[Place], budget: Budget, *, headers: Mapping[str, str]
) -> Reading:
    for place in known:
        budget.check_time()
        connection = _Connection(wanted, place)
        try:
            connection.request(
                "GET",
                wanted.resource,
                headers={"Accept-Encoding": "identity", "User-Agent": "MindCoordinator", **headers},
            )
            answer = connection.getresponse()
            return _reading(connection, answer, budget)
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()  # the next address may answer
        except Unreachable:
            connection.close()
            raise
    raise Unreachable("nothing answers there")


def _reading(connection: _Connection, answer: http.client.HTTPResponse, budget: Budget) -> Reading:
    if 300 <= answer.status < 400:
        raise Unreachable("it answers with a redirect; those are not followed")
    if answer.status != 200:
        raise Unreachable(SAYS.get(answer.status, f"it answers with status {answer.status}"))
    if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Unreachable("it sends its content compressed")
    return Reading(_Body(connection, answer), budget, size_bytes=answer.length)
