"""Page tokens: ours, of this question, or refused."""

from __future__ import annotations

import base64
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buf.validate import validate_pb2
from coordinator.rpc.pages import PageTokens
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.unit.rpc.requests import refusal_of

TOKENS = PageTokens(b"secret")


@given(st.text() | st.integers(), st.text(), st.text())
def test_a_token_gives_back_the_key_that_it_was_made_of(
    value: str | int, job_id: str, question: str
) -> None:
    token = TOKENS.make((value, job_id), question=question)
    assert TOKENS.read(token, question=question) == (value, job_id)


def test_the_last_page_has_no_token_and_the_first_needs_none() -> None:
    assert TOKENS.make(None, question="q") == ""
    assert TOKENS.read("", question="q") is None


def test_a_token_of_another_question_is_refused() -> None:
    token = TOKENS.make((1, "job_a"), question="tenant a")
    refusal = refusal_of(lambda: TOKENS.read(token, question="tenant b"))
    assert refusal.violations[0][0] == "page_token"


def test_a_token_of_another_installation_is_refused() -> None:
    token = PageTokens(b"other").make((1, "job_a"), question="q")
    refusal_of(lambda: TOKENS.read(token, question="q"))


def test_a_token_survives_a_restart_with_the_same_secret() -> None:
    token = TOKENS.make((1, "job_a"), question="q")
    assert PageTokens(b"secret").read(token, question="q") == (1, "job_a")


def test_a_forged_token_is_refused() -> None:
    token = TOKENS.make((1, "job_a"), question="q")
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    forged = base64.urlsafe_b64encode(raw[:12] + raw[12:].replace(b"job_a", b"job_b")).decode()
    refusal_of(lambda: TOKENS.read(forged, question="q"))


def test_a_token_that_is_spelled_otherwise_is_refused() -> None:
    token = TOKENS.make((1, "job_a"), question="q")
    for other in (f"{token}!", f" {token}", f"{token}=", token[:8] + "\n" + token[8:]):
        refusal_of(partial(TOKENS.read, other, question="q"))


def test_the_longest_name_makes_a_token_that_may_be_sent() -> None:
    most = api.ListJobsRequest.DESCRIPTOR.fields_by_name["page_token"].GetOptions()
    for name in ("🙂" * 256, "\x01" * 256):
        token = TOKENS.make((name, "job_" + "x" * 20), question="q")
        assert len(token) <= most.Extensions[validate_pb2.field].string.max_len


@pytest.mark.parametrize("garbage", ["x", "====", "ä", "\0", "AAAA" * 10, "-" * 1024, "🙂"])
def test_garbage_is_refused(garbage: str) -> None:
    refusal_of(lambda: TOKENS.read(garbage, question="q"))


@given(st.text(min_size=1))
def test_no_text_is_taken_for_a_token_by_chance(text: str) -> None:
    refusal_of(lambda: TOKENS.read(text, question="q"))
