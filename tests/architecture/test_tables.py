"""The tables of the core are complete, and the pages of docs/ say what they say."""

from __future__ import annotations

import importlib.util
from itertools import product
from types import ModuleType

import pytest

from coordinator.core.reasons import TABLE, Reason
from tests.architecture.sources import ROOT


def test_every_reason_has_a_row_and_every_row_a_sentence() -> None:
    assert set(TABLE) == set(Reason)
    assert all(row.doc.endswith(".") for row in TABLE.values())


def test_only_what_is_a_refusal_can_be_asked_again() -> None:
    assert not [reason for reason, row in TABLE.items() if row.retryable and not row.code]


@pytest.mark.parametrize("name", ["states.md", "errors.md"])
def test_a_drawn_page_is_as_the_tables_are(name: str) -> None:
    drawn = _tool().pages()[ROOT / "docs" / name]
    assert (ROOT / "docs" / name).read_text() == drawn, "run `make docs`"


def test_every_reason_is_on_the_page_of_errors() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    assert not [r for r, mark in product(Reason, ["|"]) if f"{mark} {r} {mark}" not in page]


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_states", ROOT / "tools" / "draw_states.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
