"""Path templates: grammar, order, overlap."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http_rule import BadTemplate, parse


@pytest.mark.parametrize(
    ("text", "path", "groups"),
    [
        ("/jobs", "/jobs", ()),
        ("/jobs/{job_id}", "/jobs/j1", ("j1",)),
        ("/jobs/{job_id}:cancel", "/jobs/j1:cancel", ("j1",)),
        ("/jobs/{job_id}", "/jobs/j1:cancel", ("j1:cancel",)),
        ("/{name=jobs/*}", "/jobs/j1", ("jobs/j1",)),
        ("/{name=jobs/*}:cancel", "/jobs/j1:cancel", ("jobs/j1",)),
        ("/{name=jobs/*/steps/*}/logs", "/jobs/a/steps/b/logs", ("jobs/a/steps/b",)),
        ("/files/{path=**}", "/files/a/b/c", ("a/b/c",)),
        ("/a/{b}/c/{d.e}", "/a/1/c/2", ("1", "2")),
        ("/*/x", "/anything/x", ()),
        ("/a b", "/a%20b", ()),
        ("/jobs:all", "/jobs:all", ()),
    ],
)
def test_a_template_matches_its_paths(text: str, path: str, groups: tuple[str, ...]) -> None:
    found = re.fullmatch(parse(text).pattern(), path)
    assert found is not None
    assert found.groups() == groups


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/jobs", "/jobs/"),
        ("/jobs/{job_id}", "/jobs/"),
        ("/jobs/{job_id}", "/jobs/a/b"),
        ("/jobs/{job_id}:cancel", "/jobs/j1"),
        ("/jobs/{job_id}:cancel", "/jobs/:cancel"),
        ("/{name=jobs/*}", "/nodes/j1"),
        ("/files/{path=**}", "/files"),
        ("/a.b", "/aXb"),
    ],
)
def test_a_template_matches_nothing_else(text: str, path: str) -> None:
    assert re.fullmatch(parse(text).pattern(), path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jobs",
        "/",
        "//",
        "/jobs/",
        "/{}",
        "/{a",
        "/{a}}",
        "/{a=}",
        "/{a={b}}",
        "/{1a}",
        "/{a..b}",
        "/{a}/{a}",
        "/**/x",
        "/{a=**}/x",
        "/{a=**}:verb",
        "/a:",
        "/a:{b}",
        "/a:b:c",
        "/a*",
        "/a=b",
    ],
)
def test_what_breaks_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(BadTemplate):
        parse(text)


@given(st.text(alphabet="/{}=*:.ab", max_size=16))
@settings(max_examples=50, deadline=None)
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = parse(text)
    except BadTemplate:
        return
    assert re.compile(template.pattern()).groups == len(template.variables)


@pytest.mark.parametrize(
    ("one", "other", "overlap", "contains"),
    [
        ("/a", "/a", True, True),
        ("/a", "/b", False, False),
        ("/{x}", "/a", True, True),
        ("/a", "/{x}", True, False),
        ("/a/{x}", "/{y}/b", True, False),
        ("/{x}", "/{x}:v", True, True),
        ("/{x}:v", "/{x}:w", False, False),
        ("/{x}:v", "/a:v", True, True),
        ("/{x}:v", "/a", False, False),
        ("/a/{x=**}", "/a/b/c", True, True),
        ("/a/{x=**}", "/a", False, False),
        ("/a/b/c", "/a/{x=**}", True, False),
        ("/{x=**}", "/a/{y=**}", True, True),
        ("/a/b", "/a/b/c", False, False),
    ],
)
def test_overlap_and_containment(one: str, other: str, overlap: bool, contains: bool) -> None:
    assert parse(one).overlaps(parse(other)) is overlap
    assert parse(other).overlaps(parse(one)) is overlap
    assert parse(one).contains(parse(other)) is contains


@given(st.lists(st.sampled_from(["a", "b", "{x}", "{x=**}", "{x}:v"]), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_the_narrower_of_two_templates_comes_first(parts: list[str]) -> None:
    try:
        template = parse("/" + "/".join(parts))
    except BadTemplate:
        return
    wider = [parse("/" + "/".join([*parts[:-1], "{y}"])), parse("/{y=**}")]
    for other in wider:
        if other.contains(template) and not template.contains(other):
            assert template.order < other.order
