"""Logs in earnest: ranks that print without end, a log store that is away for minutes, readers that
never read; on a real cluster, with what it costs the programs.

Every line carries its number, so that what arrives proves itself: numbers only rise, and where one is
missing a gap stands in its place.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coordinator.data_dir import STREAMS
from scaimind.v1 import job_pb2
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.frozen import frozen, memory
from tests.support.sse import SseReader
from tests.support.waiting import until

LONGEST_BYTES = 64 * 1024 - 6  # of a line that arrives in one piece
CALM_BYTES, CALM_PER_S = 40, 10
FROZEN = 8
LOOK_S = 0.25
LIMIT_S = 900.0
GROWTH_BYTES = {  # what all of it may cost a program, whatever is printed and for however long
    "coordinator": 192 << 20,
    "gateway": 256 << 20,
    "node_agent": 96 << 20,
}
PRINTING = """
    import os, sys, time
    width, rate, end = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    began, number = time.monotonic(), 0
    while not os.path.exists(end):
        due = int((time.monotonic() - began) * rate / width)
        for number in range(number, min(due, number + 1000)):
            sys.stdout.write(f"{number} ".ljust(width - 1, "x") + "\\n")
            number += 1
        sys.stdout.flush()
        time.sleep(0.01)
    print(number, "was the number of lines")
    """


@dataclass(slots=True)
class Printed:
    """What arrived of one rank's output."""

    lines: int = 0
    lost: int = 0  # lines, all of them where a gap is
    gaps: list[str] = field(default_factory=list)  # their reasons
    next: int = 0  # the number of the line that is to come

    def line(self, number: int, *, after_gap: bool) -> None:
        """A line arrived. Raises AssertionError where it came twice, or one is missing without a gap."""
        assert number == self.next or (after_gap and number > self.next), (number, self.next)
        self.lost += number - self.next
        self.lines += 1
        self.next = number + 1


class Rank:
    """A job of one rank that prints at a rate until it is told to end."""

    def __init__(self, cluster: Cluster, folder: Path, *, width: int, bytes_per_s: float) -> None:
        self._cluster = cluster
        self._end = folder / "end"
        program = jobs.script(folder, "printing.py", PRINTING)
        args = f"{width} {bytes_per_s} {self._end}"
        self.job_id = cluster.client.submit(jobs.body(program, args=args, gpu_type="")).job_id

    def has_printed(self) -> bool:
        """Whether a line of it has arrived."""
        events = self._cluster.client.logs(self.job_id, tail=1, follow=False)
        return any(event.WhichOneof("event") == "log" for event in events)

    def end(self) -> None:
        """Lets it print no more, and waits until it has ended well and told all."""
        self._end.touch()
        ended = jobs.final(self._cluster.client, self.job_id, within_s=LIMIT_S)
        assert ended.status == job_pb2.Job.COMPLETED, self._cluster.story()

    def arrived(self) -> Printed:
        """All that can be read of it, checked; it has ended."""
        found, after_gap = Printed(), False
        for event in self._cluster.client.logs(self.job_id, tail=-1):
            if event.WhichOneof("event") == "log":
                number, _, rest = event.log.message.partition(" ")
                if rest == "was the number of lines":
                    assert int(number) == found.next or after_gap, (number, found.next)
                    found.lost += int(number) - found.next
                    break
                found.line(int(number), after_gap=after_gap)
            elif event.WhichOneof("event") == "gap":
                found.gaps.append(event.gap.reason)
            after_gap = event.WhichOneof("event") == "gap"
        return found


class Follower:
    """A healthy reader of a rank that prints little; it sees each line once, and how late."""

    def __init__(self, cluster: Cluster, rank: Rank) -> None:
        self.seen = 0
        self.slowest_s = 0.0  # from one event to the next
        self.fault: BaseException | None = None
        self._reader = SseReader(cluster.rest, f"/jobs/{rank.job_id}/logs", {"tail": -1})
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits for the end of the log; raises what was wrong with it."""
        self._thread.join(LIMIT_S)
        if self.fault is not None:
            raise self.fault

    def _follow(self) -> None:
        try:
            last_s = time.monotonic()
            for event in self._reader.events(within_s=LIMIT_S):
                self.slowest_s = max(self.slowest_s, time.monotonic() - last_s)
                last_s = time.monotonic()
                if event.name == "log" and "number of lines" not in event.data["message"]:
                    assert int(event.data["message"].split()[0]) == self.seen, event
                    self.seen += 1
        except BaseException as error:
            self.fault = error


class Watch:
    """Looks again and again: the largest memory of each program, and the slowest answer."""

    def __init__(self, cluster: Cluster, job_id: str) -> None:
        self.before = memory(cluster)
        self.most = dict(self.before)
        self.slowest_answer_s = 0.0
        self._cluster, self._job_id = cluster, job_id
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> dict[str, int]:
        """How many bytes each program had grown by at most."""
        self._done.set()
        self._thread.join()
        return {name: self.most[name] - self.before[name] for name in self.most}

    def _look(self) -> None:
        while not self._done.wait(LOOK_S):
            for name, size in memory(self._cluster).items():
                self.most[name] = max(self.most[name], size)
            began_s = time.monotonic()
            job = self._cluster.rest.get(f"/jobs/{self._job_id}").json()["data"]
            self.slowest_answer_s = max(self.slowest_answer_s, time.monotonic() - began_s)
            assert job["status"] in ("TRAINING", "COMPLETED"), job


@contextmanager
def away(cluster: Cluster) -> Iterator[None]:
    """Nobody can write to the log store."""
    path = cluster.data_dir / STREAMS
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def flood(
    cluster: Cluster, folder: Path, *, away_s: float, live_s: float, bytes_per_s: float
) -> dict[str, Any]:
    """One run: the store is away for a time, then there with readers that never read.

    Raises:
        AssertionError: a line came twice or is missing without a gap, a job did not get on, or a
            program grew beyond its bound.
    """
    ranks = {
        "fast": Rank(cluster, folder, width=1000, bytes_per_s=bytes_per_s),
        "long": Rank(cluster, folder, width=LONGEST_BYTES, bytes_per_s=bytes_per_s / 10),
        "calm": Rank(cluster, folder, width=CALM_BYTES, bytes_per_s=CALM_BYTES * CALM_PER_S),
    }
    for rank in ranks.values():
        until(rank.has_printed, lambda: f"all print\n{cluster.story()}")
    calm = ranks["calm"]
    watch, follower = Watch(cluster, calm.job_id), Follower(cluster, calm)
    with frozen(cluster, ranks["fast"].job_id, FROZEN):
        with away(cluster):
            _pass(away_s)
        back_s = time.monotonic()
        until(
            lambda: follower.fault or follower.seen > away_s * CALM_PER_S,
            "what waited arrives",
            within_s=LIMIT_S,
        )
        caught_up_s = time.monotonic() - back_s
        _pass(live_s)
        told_s = time.monotonic()
        for rank in ranks.values():
            rank.end()
        found = {name: rank.arrived() for name, rank in ranks.items()}
        all_read_s = time.monotonic() - told_s
        follower.join()
    grown = watch.close()
    assert (follower.seen, found["calm"].gaps) == (found["calm"].lines, [])
    assert all(size < GROWTH_BYTES[name] for name, size in grown.items()), grown
    return {
        "away_s": away_s,
        "quiet_rank_caught_up_after_s": round(caught_up_s, 1),
        "all_read_after_the_end_s": round(all_read_s, 1),
        "slowest_answer_s": round(watch.slowest_answer_s, 2),
        "grown_mib": {name: round(size / 2**20) for name, size in grown.items()},
        "most_mib": {name: round(size / 2**20) for name, size in watch.most.items()},
        **{name: asdict(one) for name, one in found.items()},
    }


def _pass(seconds: float) -> None:
    """Lets time pass while others look."""
    threading.Event().wait(seconds)
