"""What opening a SQLite file refuses, and what it says; it never starts empty over what it cannot read."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.sqlite.files import FileTrouble, Schema, prepare
from coordinator.store.protocol import StoreUnavailable
from coordinator.store.sqlite import SCHEMA, SqliteStore
from coordinator.streams.sqlite import SCHEMA as STREAMS_SCHEMA
from tests.contract.stores.samples import batch, job

SCHEMAS = {"store": SCHEMA, "streams": STREAMS_SCHEMA}


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A closed file with one job in it."""
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    epoch = await store.acquire("me")
    await store.commit(batch("a", job(1)), epoch=epoch, expected_version=0)
    await store.close()
    return tmp_path / "store.db"


async def refused(path: Path, match: str) -> None:
    """Asserts that the file is refused, and left as it is."""
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StoreUnavailable, match=match):
        await SqliteStore(path).open()
    assert (path.read_bytes() if path.exists() else None) == before


def script(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def described(path: Path) -> tuple[list[tuple[str, ...]], int]:
    """Everything that a schema defines, with its version; comments and blanks do not matter."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
        ).fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    return [tuple(" ".join(str(part).split()) for part in row) for row in rows], version


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_migrating_the_oldest_file_gives_the_same_as_a_new_one(
    schema: Schema, tmp_path: Path
) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    prepare(new, schema)
    first, *_ = schema.migrations
    script(old, f"{first}; PRAGMA user_version = 1; PRAGMA application_id={schema.application_id}")
    prepare(old, schema)
    assert described(old) == described(new)
    assert described(new)[1] == len(schema.migrations)


def test_a_migration_lands_whole_or_not_at_all(path: Path) -> None:
    bad = "CREATE TABLE half (a); CREATE TABLE half (a);"
    good = "CREATE TABLE whole (a); CREATE TABLE other (a);"
    before, number = described(path), len(SCHEMA.migrations) + 1
    with pytest.raises(FileTrouble, match=f"migration {number} failed"):
        prepare(path, replace(SCHEMA, migrations=(*SCHEMA.migrations, bad)))
    assert described(path) == before
    prepare(path, replace(SCHEMA, migrations=(*SCHEMA.migrations, good)))
    assert described(path)[1] == number


async def test_a_missing_directory_is_not_made(tmp_path: Path) -> None:
    await refused(tmp_path / "not mounted" / "store.db", "does not exist; create it, or mount")
    assert not (tmp_path / "not mounted").exists()


async def test_an_empty_file_is_refused(path: Path) -> None:
    path.write_bytes(b"")
    await refused(path, "is empty; restore it")


async def test_a_file_that_is_gone_while_its_log_is_there_is_refused(path: Path) -> None:
    path.with_name("store.db-wal").write_bytes(b"committed")
    path.unlink()
    await refused(path, "is gone but its log")
    assert not path.exists()


async def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\n" * 1000)
    await refused(path, "not a database.*left as it is")


async def test_a_database_of_another_program_is_refused(path: Path) -> None:
    path.unlink()
    script(path, "CREATE TABLE theirs (a)")
    await refused(path, "another program")


async def test_the_streams_are_not_taken_for_the_store(path: Path) -> None:
    path.unlink()
    prepare(path, STREAMS_SCHEMA)
    await refused(path, "another program")


async def test_a_damaged_file_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    await refused(path, "damaged|malformed")


async def test_a_cut_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])
    await refused(path, "damaged|malformed")


async def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    script(path, "PRAGMA user_version = 999")
    known = len(SCHEMA.migrations)
    await refused(path, f"newer version \\(schema 999, known here is {known}\\); upgrade")


async def test_a_record_that_cannot_be_read_stops_the_load(path: Path) -> None:
    script(path, "UPDATE jobs SET body = '[99,{}]'")
    store = SqliteStore(path)
    await store.open()
    with pytest.raises(StoreUnavailable, match="version 99"):
        await store.load()
    await store.close()


async def test_a_second_coordinator_on_the_same_file_is_refused_by_name(path: Path) -> None:
    first = SqliteStore(path)
    await first.open()
    with pytest.raises(StoreUnavailable, match=f"in use by a coordinator .pid {os.getpid()} on"):
        await SqliteStore(path).open()
    await first.close()
    await first.open()
    await first.close()


async def test_a_file_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "store.db.new").write_bytes(b"half")
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    assert (await store.load()).version == 0
    await store.close()
    assert not (tmp_path / "store.db.new").exists()


async def test_a_sqlite_that_is_too_old_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    await refused(tmp_path / "store.db", r"at least 3\.38\.0 is needed")


READ_ONLY = """
import asyncio, os, sys
from coordinator.store.sqlite import SqliteStore
from coordinator.store.protocol import StoreUnavailable

async def main(path):
    warm = SqliteStore(path + ".warm")  # whatever is imported late is imported now
    await warm.open()
    await warm.close()
    os.chmod(path, int(sys.argv[2], 8))
    os.chmod(os.path.dirname(path), int(sys.argv[3], 8))
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        await SqliteStore(path).open()
    except StoreUnavailable as error:
        print(error)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(("file_mode", "folder_mode"), [("444", "777"), ("666", "555")])
def test_a_file_that_can_only_be_read_is_refused(
    path: Path, file_mode: str, folder_mode: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # nobody may enter the test's own
        copy = shutil.copy(path, folder)
        result = subprocess.run(
            [sys.executable, "-c", READ_ONLY, copy, file_mode, folder_mode],
            capture_output=True,
            text=True,
            check=True,
        )
        Path(folder).chmod(0o700)
    assert "check the disk and the permissions" in result.stdout


async def test_a_fault_in_the_work_gives_the_next_one_a_new_connection(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    epoch = await store.acquire("me")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("ALTER TABLE events RENAME TO elsewhere")
        with pytest.raises(StoreUnavailable, match="no such table"):
            await store.commit(batch("b", job(2)), epoch=epoch, expected_version=1)
        other.execute("ALTER TABLE elsewhere RENAME TO events")
    assert await store.job("job_0002") is None
    assert await store.commit(batch("b", job(2)), epoch=epoch, expected_version=1) == 2
    await store.close()


async def test_a_caller_who_goes_away_does_not_undo_the_commit(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    epoch = await store.acquire("me")
    committing = asyncio.create_task(
        store.commit(batch("b", job(2)), epoch=epoch, expected_version=1)
    )
    await asyncio.sleep(0)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    assert await store.commit(batch("b", job(2)), epoch=epoch, expected_version=1) == 2
    assert len(await store.events()) == 2
    await store.close()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
async def test_a_file_that_was_deleted_in_use_is_still_read_and_never_written(
    path: Path, suffix: str
) -> None:
    store = SqliteStore(path)
    await store.open()
    epoch = await store.acquire("me")
    path.with_name(path.name + suffix).unlink()
    with pytest.raises(StoreUnavailable, match="was deleted or replaced while in use"):
        await store.commit(batch("b", job(2)), epoch=epoch, expected_version=1)
    assert (await store.job("job_0001")) is not None
    with pytest.raises(StoreUnavailable, match="nothing more is written"):
        await store.load()
    await store.close()


async def test_after_a_fault_nothing_is_loaded_before_writing_works_again(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    epoch = await store.acquire("me")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("ALTER TABLE leadership RENAME TO elsewhere")
        with pytest.raises(StoreUnavailable):
            await store.commit(batch("b", job(2)), epoch=epoch, expected_version=1)
        with pytest.raises(StoreUnavailable):
            await store.load()
        other.execute("ALTER TABLE elsewhere RENAME TO leadership")
    assert (await store.load()).version == 1
    await store.close()


@pytest.mark.parametrize("kept", [0.0, 0.4, 0.9])
async def test_a_log_that_was_cut_leaves_whole_batches_and_gives_no_epoch_twice(
    path: Path, kept: float
) -> None:
    store = SqliteStore(path)
    await store.open()
    epoch = await store.acquire("me")
    for version in range(1, 20):
        events = batch(f"b{version}", job(2 * version), job(2 * version + 1))
        await store.commit(events, epoch=epoch, expected_version=version)
    copy = path.parent / "copy.db"
    shutil.copy(path, copy)  # as a crash leaves it: file and log
    log = path.with_name("store.db-wal").read_bytes()
    copy.with_name("copy.db-wal").write_bytes(log[: int(len(log) * kept)])
    await store.close()
    again = SqliteStore(copy)
    await again.open()
    snapshot = await again.load()
    assert 1 <= snapshot.version < 20
    assert len(snapshot.records) == 2 * snapshot.version - 1
    assert await again.acquire("me") > epoch
    await again.close()
