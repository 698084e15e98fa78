"""kill -9 in the middle of appends: every acknowledged line is there once, without holes."""

import subprocess
import sys
from pathlib import Path

from coordinator.streams.sqlite import SqliteStreams
from tests.contract.streams.samples import JOB, all_lines
from tests.contract.streams.writer import LINES, RANKS, line


def crash_after(path: Path, appends: int) -> dict[int, int]:
    """Runs a writer, kills it after some appends; answers the last offset told of each rank."""
    command = [sys.executable, "-m", "tests.contract.streams.writer", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(appends)]
        process.kill()
        told.extend(process.stdout.read().split("\n")[:-1])
    assert process.returncode == -9
    return {int(rank): int(offset) for rank, offset in (one.split() for one in told)}


async def test_every_acknowledged_line_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "streams.db"
    for appends in (3, 60, 200):
        told = crash_after(path, appends)
        streams = SqliteStreams(path)
        await streams.open()
        lines = await all_lines(streams, JOB)
        assert [one.position for one in lines] == list(range(1, len(lines) + 1))
        for rank in range(RANKS):
            found = [one.text for one in lines if one.rank == rank]
            assert found == [line(rank, number) for number in range(len(found))]
            assert len(found) >= told.get(rank, 0) // 9
        assert (await streams.metrics_bounds(JOB)).last == len(lines) // LINES
        await streams.close()
