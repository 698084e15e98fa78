"""kill -9 in the middle of commits: what was acknowledged is there, and no batch is there in part."""

import subprocess
import sys
from pathlib import Path

from coordinator.core.records import Job, Request
from coordinator.store.sqlite import SqliteStore
from tests.contract.stores.writer import JOBS_PER_BATCH


def crash_after(path: Path, commits: int) -> int:
    """Runs a writer, kills it after some commits; answers the last version that it told."""
    command = [sys.executable, "-m", "tests.contract.stores.writer", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(commits)]
        process.kill()
        told.extend(int(line) for line in process.stdout.read().split("\n")[:-1])
    assert process.returncode == -9
    return told[-1]


async def test_every_acknowledged_batch_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for commits in (1, 40, 200):
        told = crash_after(path, commits)
        store = SqliteStore(path)
        await store.open()
        snapshot = await store.load()
        assert snapshot.version in (told, told + 1)
        jobs = [record for record in snapshot.records if isinstance(record, Job)]
        expected = [f"job_{number:04d}" for number in range(snapshot.version * JOBS_PER_BATCH)]
        assert [job.job_id for job in jobs] == expected
        requests = [record for record in snapshot.records if isinstance(record, Request)]
        assert len(requests) == snapshot.version
        assert await store.count_jobs("acme") == {"QUEUED": len(jobs)}
        await store.close()
