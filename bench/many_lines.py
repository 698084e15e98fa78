"""Log lines of many ranks at once, until the coordinator has kept the last of them: how many a second."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.report import Figure, Row, Target, text_table
from scaimind.v1 import job_pb2
from tests.support import jobs
from tests.support.cluster import Cluster

RANKS = 20
LINES = 20_000  # of each
LIMIT_S = 300.0
PRINTER = """
    import sys
    for first in range(0, LINES, 100):
        sys.stdout.write(
            "".join(f"step {n} loss 1.2345 lr 2.0e-4 tokens/s 18234.5\\n" for n in range(first, first + 100))
        )
        sys.stdout.flush()
    """


def rows() -> list[Row]:
    """From the first submit to the end of the last job: a job ends once its lines are kept."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder) / "data", devices=f"sim:{RANKS}xL40S") as cluster,
    ):
        text = PRINTER.replace("LINES", str(LINES))
        body = jobs.body(jobs.script(Path(folder), "lines.py", text), gpu_type="L40S")
        ids = [cluster.client.submit(body).job_id for _ in range(RANKS)]
        ended = [jobs.final(cluster.client, id, within_s=LIMIT_S) for id in ids]
        last = [jobs.lines(cluster.client, id)[-1] for id in ids]
    if not all(line.startswith(f"step {LINES - 1} ") for line in last):
        raise RuntimeError(f"lines are missing: {last}")
    began_ms = min(job.created_at.ToMilliseconds() for job in ended)
    took_s = (max(map(_ended_ms, ended)) - began_ms) / 1000
    return [
        Row(
            f"Log lines of {RANKS} ranks at once, kept by the coordinator",
            Figure(RANKS * LINES / took_s, "/s"),
            target=Target(20_000, of_ratio=False, unit="/s"),
        )
    ]


def _ended_ms(job: job_pb2.Job) -> int:
    return job.completed_at.ToMilliseconds()


if __name__ == "__main__":
    print(text_table(rows()))
