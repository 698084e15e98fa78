"""The simulator finds the bugs that are planted into the cores."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from tests.sim.found import FOUND_BY
from tests.sim.planted import BUGS

ORDER = "what is done first depends on the process"
SHRUNK = "two tenants share their request ids"


def simulate(*options: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """What the program prints; a bug is planted before anything of the cores is imported."""
    words = [sys.executable, "-m", "tests.sim", *options]
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(words, env=env, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug != ORDER])
def test_a_planted_bug_is_found(bug: str) -> None:
    first = str(FOUND_BY.get(bug, 1))
    ran = simulate("--plant", bug, "--seed", first, "--count", "150", "--whole")
    assert ran.returncode == 1, f"150 seeds do not find it: {bug}"
    assert "again with: python -m tests.sim --seed" in ran.stderr
    assert f"--plant {shlex.quote(bug)}" in ran.stderr, "what is printed shows another world"
    assert "LookupError" not in ran.stderr, "the line to change is not there any more"


def test_an_order_that_depends_on_the_process_tells_another_story_in_another_one() -> None:
    stories = {
        simulate("--plant", ORDER, "--seed", "3", "--count", "3", hash_seed=one).stdout
        for one in ("0", "1", "4242")
    }
    assert len(stories) > 1


def test_a_planted_bug_is_shown_in_a_smaller_world_that_still_has_it() -> None:
    ran = simulate("--plant", SHRUNK, "--seed", "1", "--count", "20")
    command = ran.stderr.strip().rpartition("again with: ")[2]
    words = shlex.split(command)
    assert {"--plant", "--without", "--plain-clocks"} <= set(words) or "--jobs" in words, command
    again = simulate(*words[3:])
    assert again.returncode == 1
    assert again.stderr.strip().endswith(command)
