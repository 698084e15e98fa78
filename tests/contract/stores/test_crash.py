"""kill -9 in the middle of commits, and a full disk: what was acknowledged is there, and no batch is
there in part."""

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


def fill_disk(path: Path) -> list[str]:
    """Commits until the disk is full, and once more when it is not; answers what was told."""
    command = [sys.executable, "-m", "tests.contract.stores.full_disk", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


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


async def test_a_full_disk_is_an_error_that_passes_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    failed, went_on = fill_disk(path)
    version = int(failed.split()[0])
    assert "disk" in failed
    assert version > 10
    assert int(went_on) == version + 1
    store = SqliteStore(path)
    await store.open()
    snapshot = await store.load()
    assert snapshot.version == version + 1
    assert [record.id for record in snapshot.records] == [
        f"job_{number:04d}" for number in range(version + 1)
    ]
    await store.close()
