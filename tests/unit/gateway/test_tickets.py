"""Tickets: one stream, one use, one minute."""

from __future__ import annotations

import msgspec
import pytest

from gateway.auth import Identity
from gateway.catalog import Catalog
from gateway.routes import Match, build
from gateway.status import Failure
from gateway.tickets import Tickets, answer, split_query, stream_asked_for

ANN = Identity("acme", "ann", frozenset({"scaimind:view"}))
TABLE = build(Catalog.default())
PLACES = ("/v1/modules/scaimind", "")


def stream(path: str) -> Match:
    return stream_asked_for(msgspec.json.encode({"path": path}), table=TABLE, places=PLACES)


LOGS = stream("/jobs/a/logs")


def refused(tickets: Tickets, text: str, match: Match = LOGS) -> bool:
    with pytest.raises(Failure) as failure:
        tickets.redeem(text.encode(), match)
    assert failure.value.message == "The credential is not valid."
    return failure.value.http_status == 401


def test_a_ticket_opens_its_stream_once() -> None:
    tickets = Tickets()
    text, _ = tickets.issue(ANN, LOGS)
    assert tickets.redeem(text.encode(), LOGS) == ANN
    assert refused(tickets, text)


@pytest.mark.parametrize("other", ["/jobs/b/logs", "/jobs/a/metrics/stream"])
def test_a_ticket_opens_no_other_stream_and_is_used_up_by_trying(other: str) -> None:
    tickets = Tickets()
    text, _ = tickets.issue(ANN, LOGS)
    assert refused(tickets, text, stream(other))
    assert refused(tickets, text)


def test_a_ticket_ends_after_its_time() -> None:
    now = [0.0]
    tickets = Tickets(clock=lambda: now[0])
    early, _ = tickets.issue(ANN, LOGS)
    now[0] = 59.9
    late, _ = tickets.issue(ANN, LOGS)
    assert tickets.redeem(late.encode(), LOGS) == ANN
    now[0] = 60.0
    assert refused(tickets, early)


def test_tickets_are_bounded_for_each_user_and_in_all() -> None:
    now = [0.0]
    tickets = Tickets(capacity=3, per_user=2, clock=lambda: now[0])
    bob, eve = Identity("acme", "bob", frozenset()), Identity("other", "ann", frozenset())
    for _ in range(2):
        tickets.issue(ANN, LOGS)
    for one, passes in ((ANN, False), (bob, True), (eve, False)):
        if passes:
            tickets.issue(one, LOGS)
            continue
        with pytest.raises(Failure) as failure:
            tickets.issue(one, LOGS)
        assert (failure.value.http_status, failure.value.retry_after_s) == (429, 60)
    now[0] = 60.0
    tickets.issue(ANN, LOGS)


def test_only_digests_are_held() -> None:
    tickets = Tickets()
    text, _ = tickets.issue(ANN, LOGS)
    assert text not in repr(tickets._kept)


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/a/logs",
        "/v1/modules/scaimind/jobs/a/logs",
        "/jobs/a/logs?tail=3&ticket=x",
        "/jobs/%61/logs#there",
    ],
)
def test_a_stream_is_named_in_several_ways(path: str) -> None:
    match = stream(path)
    assert (match.route, match.variables) == (LOGS.route, {"job_id": "a"})


@pytest.mark.parametrize("path", ["/jobs", "/jobs/a", "/jobs/a/cancel", "/nowhere", "/"])
def test_what_is_no_stream_gets_no_ticket(path: str) -> None:
    with pytest.raises(Failure) as failure:
        stream(path)
    assert failure.value.http_status == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"[]", 422),
        (b"null", 422),
        (b"{", 400),
        (b"{}", 422),
        (b'{"path":1}', 422),
        (b'{"path":"jobs/a/logs"}', 422),
        (b'{"path":"/jobs/a/logs","x":1}', 422),
        (b'{"path":"/jobs/ a/logs"}', 422),
        (b'{"path":"/' + b"a" * 3000 + b'"}', 422),
        ('{"path":"/jobs/ü/logs"}'.encode(), 422),
    ],
)
def test_bad_bodies_are_refused(body: bytes, status: int) -> None:
    with pytest.raises(Failure) as failure:
        stream_asked_for(body, table=TABLE, places=PLACES)
    assert failure.value.http_status == status


def test_who_may_not_read_the_stream_gets_no_ticket() -> None:
    nobody = Identity("acme", "bob", frozenset({"scaimind:manage"}))
    with pytest.raises(Failure) as failure:
        answer(Tickets(), LOGS, identity=nobody, request_id="r")
    assert failure.value.http_status == 403


def test_the_ticket_leaves_the_query() -> None:
    assert split_query(b"a=1&ticket=xyz&b=2") == (b"xyz", b"a=1&b=2")
    assert split_query(b"ticket=") == (b"", b"")
    assert split_query(b"tail=1&my_ticket=2") == (None, b"tail=1&my_ticket=2")
    with pytest.raises(Failure):
        split_query(b"ticket=a&ticket=b")
