"""Several coordinators for a test, and jobs that run on their cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.counting import Counting
from tests.support.several import Several

StartCounting = Callable[[], Counting[Several]]


@pytest.fixture
def several() -> Iterator[Several]:
    """Two coordinators, a gateway and an agent."""
    folder = Path(tempfile.mkdtemp(prefix="several-"))  # short: it holds a socket
    try:
        with Several(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def counting(several: Several) -> Iterator[StartCounting]:
    """Starts a job that counts."""
    started: list[Counting[Several]] = []

    def start() -> Counting[Several]:
        started.append(Counting(several, several.folder))
        started[-1].more_lines()
        return started[-1]

    yield start
    for one in started:
        one.close()
