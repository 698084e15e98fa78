"""One cluster for all cuts of a module, healed between tests, and jobs that prove when they lived."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.parted import Beating, Parted

StartBeating = Callable[..., Beating]


@pytest.fixture(scope="module")
def whole() -> Iterator[Parted]:
    """Two nodes."""
    folder = Path(tempfile.mkdtemp(prefix="parted-"))
    try:
        with Parted(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def apart() -> Iterator[Parted]:
    """A cluster of its own: what it has been through is not undone."""
    folder = Path(tempfile.mkdtemp(prefix="parted-"))
    try:
        with Parted(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def parted(whole: Parted) -> Iterator[Parted]:
    """The same; whatever a test did to networks and programs is undone after it."""
    yield whole
    for machine in whole.machines:
        machine.network.heal()
    for program in (whole.coordinator, *(machine.agent for machine in whole.machines)):
        with suppress(ProcessLookupError):
            program.send(signal.SIGCONT)
    whole.wait_until_all_are_ready()


@pytest.fixture
def beating(parted: Parted, tmp_path: Path) -> Iterator[StartBeating]:
    """Starts a job; the words are its scheduling config."""
    started: list[Beating] = []

    def start(**scheduling: str) -> Beating:
        started.append(Beating(parted, tmp_path, scheduling=scheduling))
        return started[-1]

    yield start
    for one in started:
        one.close()
