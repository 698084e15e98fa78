"""The tables of the core are complete, and the pages of docs/ say what they say."""

from __future__ import annotations

import ast
import importlib.util
import re
from itertools import product
from types import ModuleType

import pytest
from grpc import StatusCode

from coordinator.core.reasons import TABLE, Reason
from gateway.codes import TABLE as CODES
from gateway.codes import Code
from gateway.status import TABLE as STATUSES
from tests.architecture.sources import ROOT

TREES = {path.name for path in ROOT.iterdir() if path.is_dir()}


def test_every_reason_has_a_row_and_every_row_a_sentence() -> None:
    assert set(TABLE) == set(Reason)
    assert all(row.doc.endswith(".") for row in TABLE.values())


def test_only_what_is_a_refusal_can_be_asked_again() -> None:
    assert not [reason for reason, row in TABLE.items() if row.retryable and not row.code]


def test_every_code_of_the_gateway_has_a_row_and_every_row_a_sentence() -> None:
    assert set(CODES) == set(Code)
    assert all(row.doc.endswith(".") for row in CODES.values())


def test_every_code_of_the_gateway_is_used_and_none_is_written_as_text() -> None:
    sources = {path.name: path.read_text() for path in (ROOT / "gateway").glob("*.py")}
    names = sources.pop("codes.py") and "\n".join(sources.values())
    assert not [code for code in Code if f"Code.{code}" not in names]
    texts = {
        node.value
        for text in sources.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not texts & set(Code)


def test_one_reason_has_one_http_status_whoever_gives_it() -> None:
    for code in set(Code) & set(Reason):
        known = getattr(StatusCode, TABLE[Reason(code)].code)
        assert STATUSES[known].http_status == CODES[Code(code)].http_status


@pytest.mark.parametrize("name", ["states.md", "errors.md"])
def test_a_drawn_page_is_as_the_tables_are(name: str) -> None:
    drawn = _tool().pages()[ROOT / "docs" / name]
    assert (ROOT / "docs" / name).read_text() == drawn, "run `make docs`"


def test_every_reason_is_on_the_page_of_errors() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    known = [*Reason, *Code]
    assert not [r for r, mark in product(known, ["|"]) if f"{mark} {r} {mark}" not in page]


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_states", ROOT / "tools" / "draw_states.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_file_that_the_pages_name_is_there() -> None:
    named = re.compile(r"`((?:[a-z_]+/)+[\w.-]+\.(?:py|txt|proto)|tests/[\w/]+/)`")
    pages = (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    gone = {
        (page.name, path)
        for page in pages
        for path in named.findall(page.read_text())
        if path.split("/")[0] in TREES and not (ROOT / path).exists()
    }
    assert not gone
