"""A rank's user can write into its folder: whatever stands there, the agent reads on."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_agent.core.leases import Category, Rank, State
from node_agent.runtime.contact import Contact
from node_agent.runtime.process import ProcessRuntime

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["exit_code", "signal", "ended_at_ms", "stopped", "last_lines", "error", "started_at_ms"]
)
DOCUMENTS = st.dictionaries(FIELDS, JSON).map(json.dumps) | st.text(max_size=20)


async def _adopt(folder: Path) -> Rank:
    async with asyncio.TaskGroup() as tasks:
        runtime = ProcessRuntime(tasks, Contact(str(folder / "contact")), mark=str(folder))
        await runtime.adopt(folder, 0)
        return runtime.observe(folder)


def _dead_folder(folder: Path) -> Path:
    """A rank's folder whose supervisor is gone."""
    folder.mkdir(exist_ok=True)
    if not (folder / "control").exists():
        os.mkfifo(folder / "control")
    return folder


@given(DOCUMENTS, DOCUMENTS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
def test_any_exit_and_start_files_give_an_ended_rank(
    tmp_path: Path, ended: str, started: str
) -> None:
    folder = _dead_folder(tmp_path / "rank")
    # An exit file that holds nothing useful would have the processes searched, which is slow.
    document = {"exit_code": 1, "signal": None, "ended_at_ms": 5}
    try:
        extra = json.loads(ended)
    except ValueError:
        extra = {}
    (folder / "exit.json").write_text(
        json.dumps({**document, **(extra if isinstance(extra, dict) else {})})
    )
    (folder / "started.json").write_text(started, encoding="utf-8", errors="replace")
    rank = asyncio.run(_adopt(folder))
    assert rank.state is State.ENDED
    assert all(isinstance(line, str) for line in rank.last_lines)
    assert rank.exit_code is None or isinstance(rank.exit_code, int)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"exit_code": 0}', "\0" * 4096])
async def test_an_exit_file_that_says_nothing_means_lost(tmp_path: Path, content: str) -> None:
    folder = _dead_folder(tmp_path / "rank")
    (folder / "exit.json").write_text(content)
    rank = await _adopt(folder)
    assert rank.fault is not None
    assert rank.fault.category is Category.NODE_LOST


async def test_a_control_that_is_no_fifo_means_lost(tmp_path: Path) -> None:
    folder = tmp_path / "rank"
    folder.mkdir()
    (folder / "control").write_text("not a fifo")
    rank = await _adopt(folder)
    assert rank.state is State.ENDED
