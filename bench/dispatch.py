"""From a submit to a running process, against a bare fork and exec of the same program."""

from __future__ import annotations

import os
import select
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.report import Figure, Row, Target, in_turn, quantile
from scaimind import Client
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.waiting import until

SINGLES = 150
WARM_UP = 10
MANY = 1000
ROUNDS = 2
TOGETHER = 4
ANSWER_S = 10.0
# Writes when it began, in one system call, before it does anything else.
PROGRAM = '#!/bin/bash\necho "$EPOCHREALTIME" > "$1"\n'
TRUE = "/bin/true"


def rows() -> list[Row]:
    """One job at a time on an idle cluster, then a thousand together."""
    with tempfile.TemporaryDirectory() as folder:
        with Cluster(Path(folder) / "one") as cluster:
            found = _singles(cluster, Path(folder))
        with Cluster(Path(folder) / "many", devices="sim:64xH100") as cluster:
            return [*found, _thousand(cluster)]


class Moments:
    """A pipe into which programs write when they began, in seconds since 1970."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def next(self) -> float:
        """The next moment. Raises TimeoutError."""
        ready, _, _ = select.select([self._pipe], [], [], ANSWER_S)
        if not ready:
            raise TimeoutError("no process began")
        return float(os.read(self._pipe, 100))

    def close(self) -> None:
        """Closes the pipe."""
        os.close(self._pipe)


@contextmanager
def moments(path: Path) -> Iterator[Moments]:
    """A pipe that is closed afterwards."""
    pipe = Moments(path)
    try:
        yield pipe
    finally:
        pipe.close()


def _singles(cluster: Cluster, folder: Path) -> list[Row]:
    program, path = jobs.script(folder, "begin.sh", PROGRAM), folder / "moments"
    body = jobs.body(program, args=str(path))
    ours: list[float] = []
    bare: list[float] = []
    with moments(path) as pipe:
        for _ in range(WARM_UP + SINGLES):
            ours.append(_one_job(cluster.client, body, pipe))
            bare.append(_one_fork([str(program), str(path)], pipe))
    ours, bare = ours[WARM_UP:], bare[WARM_UP:]
    name = "Submit → first instruction of the training process, idle"
    targets = {50: Target(10, 6, True, False, "ms"), 99: Target(25, None, True, False, "ms")}
    return [
        Row(
            f"{name}, p{share}; fork and exec",
            Figure(quantile(ours, share / 100) * 1000, "ms"),
            Figure(quantile(bare, share / 100) * 1000, "ms"),
            target,
        )
        for share, target in targets.items()
    ]


def _one_job(client: Client, body: dict[str, object], pipe: Moments) -> float:
    began = time.time()
    job_id = client.submit(body).job_id
    took = pipe.next() - began
    client.wait(job_id, timeout_s=ANSWER_S)
    return took


def _one_fork(argv: list[str], pipe: Moments) -> float:
    began = time.time()
    pid = os.posix_spawn(argv[0], argv, os.environ)
    took = pipe.next() - began
    os.waitpid(pid, 0)
    return took


def _thousand(cluster: Cluster) -> Row:
    client = cluster.client
    body = jobs.body(TRUE, gpu_type="H100")

    def ours() -> float:
        before = client.jobs_page(status=["COMPLETED"], page_size=1).total_count
        began = time.perf_counter()
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda _: client.submit(body), range(MANY)))
        until(
            lambda: _completed(client) >= before + MANY,
            "all jobs are COMPLETED",
            within_s=120,
        )
        return time.perf_counter() - began

    took, bare = in_turn((ours, _thousand_forks), rounds=ROUNDS, warm_up=False)
    return Row(
        "1,000 × true, submit to all COMPLETED; fork and exec of 1,000",
        Figure(took, "s"),
        Figure(bare, "s"),
        Target(3.5, 2.2, at_most=True, of_ratio=False, unit="s"),
    )


def _completed(client: Client) -> int:
    return client.jobs_page(status=["COMPLETED"], page_size=1).total_count


def _thousand_forks() -> float:
    began = time.perf_counter()
    running = 0
    for _ in range(MANY):
        if running == TOGETHER:
            os.wait()
            running -= 1
        os.posix_spawn(TRUE, [TRUE], {})
        running += 1
    for _ in range(running):
        os.wait()
    return time.perf_counter() - began
