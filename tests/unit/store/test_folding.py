"""The embedded store folds its log when nothing more comes, so that no commit has to."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from coordinator.sqlite.database import FOLD_CHANGES
from coordinator.store.sqlite import SqliteStore
from tests.contract.stores.samples import batch, job
from tests.support.waiting import until


def in_the_file(path: Path, copy: Path) -> int:
    """How many jobs the file holds by itself, without its log; 0 while it is being written."""
    shutil.copyfile(path, copy)
    with closing(sqlite3.connect(copy)) as connection:
        try:
            (count,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
        except sqlite3.DatabaseError:
            return 0
    return int(count)


async def test_what_a_large_commit_wrote_is_soon_in_the_file_itself(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copy.db"
    store = SqliteStore(path)
    await store.open()
    epoch = await store.acquire("me")
    jobs = [job(number) for number in range(FOLD_CHANGES)]
    await store.commit(batch("a", *jobs), epoch=epoch, expected_version=0)
    until(lambda: in_the_file(path, copy) == len(jobs), "the log is folded")
    await store.commit(batch("b", job(1)), epoch=epoch, expected_version=1)  # and goes on
    await store.close()
