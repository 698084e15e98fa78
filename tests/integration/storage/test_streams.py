"""Logs of a real cluster: the log store down for a while, a rank that never stops talking, readers that
never read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.data_dir import STREAMS
from scaimind.v1 import job_pb2
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.frozen import frozen, memory
from tests.support.sse import SseReader
from tests.support.waiting import until

Job = job_pb2.Job

LONGEST_BYTES = 64 * 1024 - 6  # of a line that arrives in one piece
LONG_LINES = 150
BURST_BYTES = 20_000_000
LINE_BYTES = 1000
FROZEN = 8
GROWTH_BYTES = {  # what a burst may cost a program: its tails, and what is on its way
    "coordinator": 96 << 20,
    "gateway": 256 << 20,  # above all the windows that gRPC opens for each reader
    "node_agent": 64 << 20,
}

COUNTING = """
    import sys
    count, width = map(int, sys.argv[1:])
    for number in range(count):
        sys.stdout.write(f"{number} ".ljust(width - 1, "x") + "\\n")
    """


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("streams")
    with Cluster(folder / "data", devices="sim:4xH100") as running:
        yield running


def counts(cluster: Cluster, folder: Path, lines: int, *, width: int) -> str:
    """A job that prints rising numbers in lines of so many bytes; its id."""
    program = jobs.script(folder, "counting.py", COUNTING)
    body = jobs.body(program, args=f"{lines} {width}", gpu_type="")
    return cluster.client.submit(body).job_id


def test_while_the_log_store_is_down_jobs_run_and_no_line_is_lost(
    cluster: Cluster, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(cluster.data_dir / STREAMS, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # nobody else can write there
        ids = [counts(cluster, tmp_path, 5000, width=60) for _ in range(2)]
        for job_id in ids:
            assert jobs.final(cluster.client, job_id).status == Job.COMPLETED
        log = cluster.data_dir / "log" / "coordinator.log"
        until(lambda: "database is locked" in log.read_text(), "an append has failed")
        assert cluster.client.get_job(ids[0]).status == Job.COMPLETED
        other.execute("ROLLBACK")
    for job_id in ids:
        lines = jobs.lines(cluster.client, job_id)
        assert [int(line.split()[0]) for line in lines] == list(range(5000))


def test_the_longest_lines_arrive_in_one_piece_and_in_order(
    cluster: Cluster, tmp_path: Path
) -> None:
    job_id = counts(cluster, tmp_path, LONG_LINES, width=LONGEST_BYTES)
    lines = jobs.lines(cluster.client, job_id)
    assert [int(line.split()[0]) for line in lines] == list(range(LONG_LINES))
    assert {len(line) for line in lines} == {LONGEST_BYTES - 1}


def test_a_rank_that_talks_without_end_and_readers_that_never_read_cost_bounded_memory(
    cluster: Cluster, tmp_path: Path
) -> None:
    count = BURST_BYTES // LINE_BYTES
    before = memory(cluster)
    job_id = counts(cluster, tmp_path, count, width=LINE_BYTES)
    reader = SseReader(cluster.rest, f"/jobs/{job_id}/logs", {"tail": -1})
    with frozen(cluster, job_id, FROZEN):
        events = list(reader.events())
        assert jobs.final(cluster.client, job_id).status == Job.COMPLETED
        after = memory(cluster)
    seen = [int(event.data["message"].split()[0]) for event in events[:-1]]
    assert (seen, events[-1].name, reader.breaks) == (list(range(count)), "end", 0)
    grown = {name: after[name] - before[name] for name in before}
    assert all(size < GROWTH_BYTES[name] for name, size in grown.items()), grown
