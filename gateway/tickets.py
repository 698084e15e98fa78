"""Tickets for streams: a browser's EventSource cannot send a header, so its credential travels in
the query, as something that is of no use to whoever finds it there later.

`POST …/stream-tickets` gives a caller a ticket for one stream; `?ticket=` opens that stream once,
within a minute, as that caller. Query parameters of the stream are not bound. Tickets are kept in
the memory of the gateway that gave them, as digests.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.auth import Identity, require, unauthenticated
from gateway.codes import Code
from gateway.faults import shorten
from gateway.json_in import Malformed, decode
from gateway.routes import Match, RouteTable
from gateway.status import Failure, invalid

PATH = "/stream-tickets"
PARAMETER = b"ticket="
TTL_S = 60
CAPACITY, PER_USER = 20_000, 100
MAX_PATH = 2048
PATH_PATTERN = "/[!-~]*"
_PATH = re.compile(PATH_PATTERN)


@dataclass(frozen=True, slots=True)
class _Ticket:
    ends_at: float
    match: Match
    identity: Identity

    @property
    def user(self) -> tuple[str, str]:
        return (self.identity.tenant_id, self.identity.user_id)


class Tickets:
    """The tickets of one gateway that are not used yet."""

    def __init__(
        self,
        *,
        ttl_s: float = TTL_S,
        capacity: int = CAPACITY,
        per_user: int = PER_USER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bounds how long a ticket is good, and how many there are."""
        self._ttl_s, self._capacity, self._per_user = ttl_s, capacity, per_user
        self._clock = clock
        self._kept: OrderedDict[bytes, _Ticket] = OrderedDict()
        self._of_user: Counter[tuple[str, str]] = Counter()

    def issue(self, identity: Identity, match: Match) -> tuple[str, datetime]:
        """A ticket for a stream, and when it ends.

        Raises:
            Failure: 429, where there are too many that were not used.
        """
        self._expire()
        ticket = _Ticket(self._clock() + self._ttl_s, match, replace(identity, subject_token=""))
        if len(self._kept) >= self._capacity or self._of_user[ticket.user] >= self._per_user:
            message = "Too many tickets that were not used."
            raise Failure(Code.RATE_LIMITED, message=message, retry_after_s=round(self._ttl_s))
        text = secrets.token_urlsafe(32)
        self._kept[_digest(text.encode())] = ticket
        self._of_user[ticket.user] += 1
        return text, datetime.fromtimestamp(time.time() + self._ttl_s, UTC)

    def redeem(self, text: bytes, match: Match) -> Identity:
        """The caller that the ticket was given to. It is used up, whether it opens this stream or not.

        Raises:
            Failure: 401, where it is not a ticket for this stream, or not any more.
        """
        self._expire()
        ticket = self._forget(_digest(text))
        if ticket is None or (ticket.match.route, ticket.match.variables) != (
            match.route,
            match.variables,
        ):
            raise unauthenticated()
        return ticket.identity

    def _expire(self) -> None:
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept))
            if self._kept[oldest].ends_at > now:
                return
            self._forget(oldest)

    def _forget(self, digest: bytes) -> _Ticket | None:
        ticket = self._kept.pop(digest, None)
        if ticket is not None:
            self._of_user[ticket.user] -= 1
            if not self._of_user[ticket.user]:
                del self._of_user[ticket.user]
        return ticket


def stream_asked_for(body: bytes, *, table: RouteTable, places: tuple[str, ...]) -> Match:
    """The stream that the body of a request for a ticket names.

    The path may begin with one of `places`, where the API stands, and may have a query.

    Raises:
        Failure: 400 or 422 for a body that names none, 404 for one that there is not.
    """
    path = _named(body).partition("?")[0].partition("#")[0]
    for place in places:
        if place and path.startswith(place + "/"):
            path = path.removeprefix(place)
            break
    match = table.find("GET", path)
    if match is None or not match.route.method.streaming:
        raise Failure(Code.NOT_FOUND, message="There is no such stream.")
    return match


def answer(tickets: Tickets, match: Match, *, identity: Identity, request_id: str) -> bytes:
    """The body of the answer to a caller who may read the stream.

    Raises:
        Failure: 403, where the caller may not; 429, where there are too many tickets.
    """
    require(identity, match.route.method.any_of)
    text, ends_at = tickets.issue(identity, match)
    expires_at = ends_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data = {"ticket": text, "expires_at": expires_at}
    return msgspec.json.encode({"status": "ok", "data": data, "meta": {"request_id": request_id}})


def split_query(query: bytes) -> tuple[bytes | None, bytes]:
    """The ticket of a query, and the rest of the query.

    Raises:
        Failure: 422, where there are several.
    """
    parts = query.split(b"&")
    found = [part for part in parts if part.startswith(PARAMETER)]
    if not found:
        return None, query
    if len(found) > 1:
        raise invalid([("ticket", "given more than once")])
    rest = b"&".join(part for part in parts if not part.startswith(PARAMETER))
    return found[0].removeprefix(PARAMETER), rest


def _named(body: bytes) -> str:
    try:
        value: Any = decode(body) if body else {}
    except Malformed as error:
        raise Failure(Code.MALFORMED_JSON, message=f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise invalid([("body", "must be an object")])
    faults = [(shorten(name), "unknown field") for name in value if name != "path"][:100]
    path = value.get("path")
    if not isinstance(path, str) or len(path) > MAX_PATH or not _PATH.fullmatch(path):
        faults.append(("path", "must be the percent-encoded path of a stream"))
    if faults or not isinstance(path, str):
        raise invalid(faults)
    return path


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
