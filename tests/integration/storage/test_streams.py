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
from tests.endurance.flood import LONGEST_BYTES, flood
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.waiting import until

Job = job_pb2.Job

LONG_LINES = 150

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


def test_a_flood_of_logs_costs_bounded_memory_and_no_line_comes_twice_or_is_missing(
    cluster: Cluster, tmp_path: Path
) -> None:
    """In little; `python -m tests.endurance flood` does the same for minutes."""
    seen = flood(cluster, tmp_path, away_s=5.0, live_s=1.0, bytes_per_s=10e6)
    assert [seen[rank]["lost"] for rank in ("fast", "long", "calm")] == [0, 0, 0]
    assert seen["fast"]["lines"] > 50_000
