"""A job that prints rising numbers, and a reader of its log that wants each of them once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import httpx

from scaimind import Client
from scaimind.v1 import job_pb2
from tests.support import jobs
from tests.support.sse import SseEvent, SseReader
from tests.support.waiting import until


class Served(Protocol):
    """What the job runs on."""

    @property
    def client(self) -> Client:
        """A gRPC client."""

    @property
    def rest(self) -> httpx.Client:
        """A client of the REST module."""

    def story(self) -> str:
        """What went on, for messages."""


S = TypeVar("S", bound=Served)

MORE_LINES = 40
COUNTING = """
    import os, sys, time
    number = 0
    while not os.path.exists(sys.argv[1]):
        print(number)
        number += 1
        time.sleep(0.004)
    print("last", number)
    sys.exit(int(sys.argv[2]))
    """


class Counting(Generic[S]):
    """A job that prints rising numbers until it is told to end, and a reader of its log."""

    def __init__(self, cluster: S, folder: Path, *, exit_code: int = 0) -> None:
        self.cluster = cluster
        self._signal = folder / "end"
        program = jobs.script(folder, "counting.py", COUNTING)
        args = f"{self._signal} {exit_code}"
        self.job_id = cluster.client.submit(jobs.body(program, args=args)).job_id
        self.events: list[SseEvent] = []
        self.reader = SseReader(cluster.rest, f"/jobs/{self.job_id}/logs", {"tail": -1})
        self._fault: AssertionError | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def more_lines(self) -> None:
        """Waits until the reader has got some more lines."""
        before = len(self.events)
        until(
            lambda: len(self.events) >= before + MORE_LINES,
            lambda: f"more lines after {before}\n{self._fault}\n{self.cluster.story()}",
        )

    def end(self) -> None:
        """Lets the job end."""
        self._signal.touch()

    def check(self) -> job_pb2.Job:
        """The final record; every number must have come exactly once and in order, in one attempt."""
        self._thread.join(150)
        assert self._fault is None, self._fault
        assert not self._thread.is_alive(), self.cluster.story()
        assert [event.name for event in self.events[:-1]] == ["log"] * (len(self.events) - 1)
        count = len(self.events) - 2
        shown = [event.data["message"] for event in self.events[:-1]]
        assert shown == [*map(str, range(count)), f"last {count}"]
        assert self.events[-1].name == "end"
        job = jobs.final(self.cluster.client, self.job_id)
        assert job.attempts_count == 1
        return job

    def close(self) -> None:
        """Ends the job whatever has happened."""
        self.end()
        self._thread.join(150)

    def _read(self) -> None:
        try:
            for event in self.reader.events():
                self.events.append(event)
        except AssertionError as fault:
            self._fault = fault
