"""A rank's surroundings: its folders, its events file, and signal handlers put back afterwards."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scaimind.job import Attempt
from scaimind.job.environment import read


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What an agent sets for rank 0 of the first attempt of job_1."""
    return {
        "MIND_JOB_ID": "job_1",
        "MIND_LINEAGE_ID": "job_0",
        "MIND_ATTEMPT": "1",
        "MIND_CHECKPOINT_DIR": str(tmp_path / "checkpoints"),
        "MIND_OUTPUT_DIR": str(tmp_path / "output"),
        "MIND_EVENTS": str(tmp_path / "events.jsonl"),
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
    }


@pytest.fixture
def run(environ: dict[str, str]) -> Attempt:
    """The in-job library of that rank."""
    return Attempt(read(environ))


Events = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def events(tmp_path: Path) -> Events:
    """Reads the events written so far, each a dictionary."""

    def read_events() -> list[dict[str, Any]]:
        lines = (tmp_path / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return read_events
