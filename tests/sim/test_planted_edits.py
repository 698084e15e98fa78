"""What a planted bug changes is still there; finding the bugs themselves takes longer."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.sim.planted import BUGS


@pytest.mark.parametrize("bug", BUGS)
def test_the_lines_that_a_planted_bug_changes_are_there_once(bug: str) -> None:
    for edit in BUGS[bug]:
        spec = find_spec(edit.module)
        assert spec is not None, edit.module
        assert spec.origin is not None, edit.module
        assert Path(spec.origin).read_text().count(edit.old) == 1, edit
