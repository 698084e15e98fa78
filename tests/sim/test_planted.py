"""The simulator finds the bugs that are planted into the cores."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from tests.sim.planted import BUGS, FOUND_BY

LEAD = 3


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    first = str(max(1, FOUND_BY.get(bug, 1) - LEAD))
    ran = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--plant", bug, "--seed", first, "--count", "150"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, f"150 seeds do not find it: {bug}"
    assert "again with: python -m tests.sim --seed" in ran.stderr
    assert f"--plant {shlex.quote(bug)}" in ran.stderr, "what is printed shows another world"
    assert "LookupError" not in ran.stderr, "the line to change is not there any more"
