"""Reads http(s): connects to an address that was checked, follows no redirect, takes plain content only."""

from __future__ import annotations

import http.client
from collections.abc import Mapping, Sequence

from coordinator.data.reading import Budget, Reading
from coordinator.data.terms import Unreachable
from scaimind.service.reach.guard import Network, Place, Target, places, target
from scaimind.service.reach.web import Connection, known_places

WAIT_S = 5.0  # for a connection, and for each piece
SAYS = {
    401: "access is denied there",
    403: "access is denied there",
    404: "there is no such file",
    410: "there is no such file",
}


class _Body:
    """The content of an answer, with the connection that it comes by."""

    def __init__(self, connection: Connection, answer: http.client.HTTPResponse) -> None:
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
    return _open(wanted, known_places(wanted), budget, headers=headers)


def _open(
    wanted: Target, known: Sequence[Place], budget: Budget, *, headers: Mapping[str, str]
) -> Reading:
    for place in known:
        budget.check_time()
        connection = Connection(wanted, place, wait_s=WAIT_S)
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


def _reading(connection: Connection, answer: http.client.HTTPResponse, budget: Budget) -> Reading:
    if 300 <= answer.status < 400:
        raise Unreachable("it answers with a redirect; those are not followed")
    if answer.status != 200:
        raise Unreachable(SAYS.get(answer.status, f"it answers with status {answer.status}"))
    if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Unreachable("it sends its content compressed")
    return Reading(_Body(connection, answer), budget, size_bytes=answer.length)
