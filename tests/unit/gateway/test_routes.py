"""The route table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gateway
from gateway.catalog import BadCatalog, Catalog, HttpBinding, Method
from gateway.http_rule import parse
from gateway.routes import Route, RouteTable, build
from tests.proto.compiled import descriptor_set

CATALOG = Catalog.default()


def route(verb: str, path: str) -> Route:
    return Route(CATALOG.methods[0], HttpBinding(verb, path, ""), parse(path))


def method_of(table: RouteTable, verb: str, path: str) -> str:
    found = table.find(verb, path)
    return found.route.template.text if found else ""


def test_every_bound_method_has_a_route_and_the_rest_none() -> None:
    bound: list[Method] = [method for method in CATALOG.methods if method.bindings]
    assert {found.method.rpc_path for found in build(CATALOG).routes} == {
        method.rpc_path for method in bound
    }
    assert len(bound) >= 24


def test_no_method_is_named_in_the_gateway() -> None:
    names = {
        method.name
        for catalog in (CATALOG, Catalog(descriptor_set()))
        for method in catalog.methods
    }
    words = re.compile(r"\b(" + "|".join(sorted(names)) + r")\b")
    folder = Path(gateway.__file__).parent
    named = [
        (file.name, found)
        for file in folder.rglob("*.py")
        for found in words.findall(file.read_text())
    ]
    assert named == []


def test_the_most_literal_route_wins_whatever_the_order() -> None:
    paths = ["/{x=**}", "/a/{x}", "/a/b", "/a/{x}:v", "/{x}/{y}"]
    for turn in range(len(paths)):
        turned = paths[turn:] + paths[:turn]
        table = RouteTable(route("GET", path) for path in turned)
        assert method_of(table, "GET", "/a/b") == "/a/b"
        assert method_of(table, "GET", "/a/c:v") == "/a/{x}:v"
        assert method_of(table, "GET", "/a/c") == "/a/{x}"
        assert method_of(table, "GET", "/c/b") == "/{x}/{y}"
        assert method_of(table, "GET", "/c") == "/{x=**}"


@pytest.mark.parametrize(
    ("one", "other"), [("/a/{x}", "/a/{y}"), ("/a/{x}", "/{y}/b"), ("/a", "/a")]
)
def test_an_ambiguous_table_refuses_to_start(one: str, other: str) -> None:
    with pytest.raises(BadCatalog, match="can match one path"):
        RouteTable([route("GET", one), route("GET", other)])
    RouteTable([route("GET", one), route("POST", other)])


def test_an_encoded_slash_is_part_of_an_identifier() -> None:
    found = build(CATALOG).find("GET", "/jobs/a%2Flogs")
    assert found is not None
    assert found.variables == {"job_id": "a/logs"}
    assert build(CATALOG).find("GET", "/jobs%2Fa") is None


@pytest.mark.parametrize("path", ["", "/", "/jobs/", "/jobs//logs", "/jobs/%ff", "/Jobs", "jobs"])
def test_odd_paths_match_nothing(path: str) -> None:
    assert build(CATALOG).find("GET", path) is None


def test_the_verbs_of_a_path_are_known() -> None:
    table = build(CATALOG)
    assert table.allowed("/jobs") == ("GET", "POST")
    assert table.allowed("/jobs/j/cancel") == ("POST",)
    assert table.allowed("/nowhere") == ()


def test_the_most_literal_path_owns_its_verbs() -> None:
    table = build(CATALOG)
    assert table.allowed("/jobs/batch") == ("POST",)
    assert table.find("GET", "/jobs/batch") is None
    assert method_of(table, "GET", "/jobs/batches") == "/jobs/{job_id}"


def test_the_same_path_may_name_its_variables_differently_for_each_verb() -> None:
    table = RouteTable([route("GET", "/a/{x}"), route("POST", "/a/{y}"), route("GET", "/{z}/{w}")])
    assert table.allowed("/a/b") == ("GET", "POST")
    assert method_of(table, "GET", "/a/b") == "/a/{x}"
