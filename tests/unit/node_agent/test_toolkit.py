"""A node whose container toolkit can be left by a crafted image starts no containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent import toolkit
from node_agent.runtime.rules import ContainerRules, ProcessRules, Rules

RULES = Rules(
    ProcessRules(user=None, group="", pids=1000, python="/usr/bin/python3"),
    ContainerRules("/engine", "7:8"),
    (),
)


def says(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a program in the toolkit's place."""
    program = folder / toolkit.PROGRAM
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("version", "is_taken"),
    [
        ("1.16.1", False),
        ("1.17.7", False),
        ("1.9.0", False),
        ("1.17.8", True),
        ("v1.18.0-rc.1", True),
        ("2.0.0", True),
    ],
)
def test_containers_are_started_from_the_first_safe_version_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_taken: bool
) -> None:
    said = f"echo 'NVIDIA Container Toolkit CLI version {version}'; echo 'commit: 0f1e2d'"
    says(tmp_path, said, monkeypatch)
    assert (toolkit.guarded(RULES).containers is not None) is is_taken
    assert toolkit.guarded(RULES).processes == RULES.processes


@pytest.mark.parametrize("text", ["exit 1", "echo nonsense", "echo version 1.2"])
def test_what_says_no_version_is_no_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    says(tmp_path, text, monkeypatch)
    assert toolkit.guarded(RULES) == RULES


def test_where_there_is_no_toolkit_or_are_no_containers_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolkit.guarded(RULES) == RULES
    says(tmp_path, "echo version 1.0.0", monkeypatch)
    alone = Rules(RULES.processes, None, ())
    assert toolkit.guarded(alone) == alone
