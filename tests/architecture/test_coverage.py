"""docs/api-coverage.md is whole: every way in stands there; every test that it or another page names exists."""

from __future__ import annotations

import re
from functools import cache

import pytest
import typer

from gateway.app import create_app
from gateway.catalog import Catalog
from gateway.tickets import PATH as TICKETS
from gateway.upstream import Upstream
from scaimind.cli.main import build
from tests.architecture.sources import ROOT

PAGE = (ROOT / "docs" / "api-coverage.md").read_text(encoding="utf-8")
AGENT = (ROOT / "docs" / "node-agent.md").read_text(encoding="utf-8")
TESTED = AGENT[AGENT.index("## What is tested where") :]
NAMED = re.compile(r"`([\w/]+\.(?:py::\w+|txt))`")
PUBLIC = "/scaimind.v1."


def rows(text: str) -> list[list[str]]:
    """Cells of the tables of a text, without their heads."""
    found = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line] for line in found]
    return [row for row in cells if row[-1] not in ("Shown by", "---")]


ENDPOINTS = rows(PAGE[PAGE.index("## Endpoints") : PAGE.index("## The module over REST")])


@cache
def functions(file: str) -> frozenset[str]:
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE))


def column(number: int) -> set[str]:
    return {part for row in ENDPOINTS for part in row[number].replace("`", "").split(", ")}


def test_every_route_and_method_stands_there_side_by_side() -> None:
    known = {(row[0], row[1]) for row in ENDPOINTS}
    methods = [one for one in Catalog.default().methods if one.rpc_path.startswith(PUBLIC)]
    assert len(methods) > 20
    bound = {
        (f"{binding.verb} {binding.path}", method.name)
        for method in methods
        for binding in method.bindings
    }
    assert not bound - known
    unbound = {method.name for method in methods if not method.bindings}
    assert not unbound - {part.partition(" ")[0] for part in column(1)}


@pytest.mark.parametrize("operational", [True, False])
def test_what_the_gateway_serves_beside_them_stands_there(operational: bool) -> None:
    module = create_app(Upstream("127.0.0.1:1"), prefix="", operational=operational)
    served = {f"GET {path}" for path in module._pages} | {f"POST {TICKETS}"}
    assert not served - column(0)


def test_every_verb_of_the_command_line_stands_there() -> None:
    verbs = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    assert not {f"scaimind {verb}" for verb in verbs} - column(2)


@pytest.mark.parametrize("page", [PAGE, TESTED], ids=["api-coverage", "node-agent"])
def test_every_row_names_tests_and_every_test_exists(page: str) -> None:
    assert rows(page)
    assert not [row for row in rows(page) if not NAMED.search(row[-1])]
    for found in NAMED.findall(page):
        file, _, name = found.partition("::")
        assert (ROOT / "tests" / file).is_file(), found
        assert not name or name in functions(file), found
