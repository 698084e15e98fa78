"""A rank that prints 10 MB a second for 20 s, one reader, some that never read: what arrives, what it costs.

`python -m bench.steady_log` prints the table by itself.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.report import Figure, Row, Target, text_table
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.frozen import frozen, memory
from tests.support.sse import SseReader

SECONDS = 20
LINE_BYTES = 1000
LINES_PER_S = 10_000
FROZEN = 8
PRINTER = """
    import sys, time
    began, count = time.monotonic(), 0
    while count < LINES:
        due = min(LINES, int((time.monotonic() - began) * RATE) + 1)
        sys.stdout.write("".join(f"{n} ".ljust(WIDTH - 1, "x") + "\\n" for n in range(count, due)))
        sys.stdout.flush()
        count = due
        time.sleep(0.01)
    """


def rows() -> list[Row]:
    """What the reader got, and how much each program grew."""
    lines = SECONDS * LINES_PER_S
    text = PRINTER.replace("LINES", str(lines)).replace("RATE", str(LINES_PER_S))
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder) / "data") as cluster:
        program = jobs.script(Path(folder), "steady.py", text.replace("WIDTH", str(LINE_BYTES)))
        before, began_s = memory(cluster), time.perf_counter()
        job_id = cluster.client.submit(jobs.body(program)).job_id
        with frozen(cluster, job_id, FROZEN):
            expected = 0
            for event in SseReader(cluster.rest, f"/jobs/{job_id}/logs", {"tail": -1}).events():
                if event.name != "end":
                    assert int(event.data["message"].split()[0]) == expected
                    expected += 1
            took_s = time.perf_counter() - began_s
            after = memory(cluster)
        assert expected == lines
    what = f"A rank prints {LINES_PER_S * LINE_BYTES // 10**6} MB/s for {SECONDS} s"
    return [
        Row(f"{what}: read to its end after", Figure(took_s, "s")),
        *(
            Row(
                f"{what}, {FROZEN} readers are frozen: growth of the {name}",
                Figure((after[name] - before[name]) / (1 << 20), "MiB"),
                None,
                Target(256, 64, at_most=True, of_ratio=False, unit="MiB"),
            )
            for name in before
        ),
    ]


if __name__ == "__main__":
    print(text_table(rows()))
