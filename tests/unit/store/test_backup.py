"""Backups: made while the store is used, whole or not at all, checked when they are put back."""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.backup import EXIT_REFUSED, MANIFEST, main
from coordinator.core.records import Job, Node
from coordinator.data_dir import ADMIN_KEY, STORE, STREAMS, check_whole
from coordinator.sqlite.files import FileTrouble
from coordinator.store.sqlite import SqliteStore
from coordinator.streams.protocol import Append, Source
from coordinator.streams.sqlite import SqliteStreams
from tests.contract.stores.samples import batch, job, node


class Home:
    """An open store and streams in a data directory, in which each version has one job with one line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(folder / STORE)
        self.streams = SqliteStreams(folder / STREAMS)
        self.epoch = self.version = 0

    async def open(self) -> None:
        await self.store.open()
        await self.streams.open()
        self.epoch = await self.store.acquire("me")
        self.version = (await self.store.load()).version

    async def close(self) -> None:
        await self.store.close()
        await self.streams.close()

    async def add(self) -> None:
        """The line comes first, as it does when a job writes before its end is known."""
        one = job(self.version)
        source = Source(job_id=one.job_id, attempt=1, rank=0, channel=1, node_id="n")
        append = Append(
            source=source, begin=0, end=5, texts=["line"], ends=[5], times_ms=[1], levels=[2]
        )
        await self.streams.append([append])
        self.version = await self.store.commit(
            batch(f"b{self.version}", one), epoch=self.epoch, expected_version=self.version
        )


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path / "data")
    made.folder.mkdir()
    await made.open()
    yield made
    await made.close()


def make(home: Home, *words: str) -> Path:
    """A backup of what a home holds."""
    folder = home.folder.parent / "backup"
    assert main(["make", str(folder), "--data-dir", str(home.folder), *words]) == 0
    return folder


def restore(folder: Path, data_dir: Path) -> int:
    return main(["restore", str(folder), "--data-dir", str(data_dir)])


async def test_what_was_committed_before_is_there_again_and_epochs_are_higher(
    home: Home, tmp_path: Path
) -> None:
    for _ in range(3):
        await home.add()
    folder = make(home)
    await home.add()
    assert restore(folder, tmp_path / "new") == 0
    again = Home(tmp_path / "new")
    await again.open()
    assert again.version == 3
    assert again.epoch > home.epoch + 1_000_000
    assert (await again.streams.log_bounds("job_0002")).last == 1
    await again.add()
    await again.close()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").glob("*.db")} == {0o600}


async def test_a_backup_during_writes_is_one_moment_whose_logs_are_not_older(
    home: Home, tmp_path: Path
) -> None:
    running = True

    async def write_on() -> None:
        while running:
            await home.add()

    writing = asyncio.create_task(write_on())
    for number in range(4):
        while home.version < 20 * (number + 1):
            await home.store.load()
        folder = tmp_path / f"backup-{number}"
        before = home.version
        words = ["make", str(folder), "--data-dir", str(home.folder)]
        assert await asyncio.to_thread(main, words) == 0
        assert restore(folder, tmp_path / f"new-{number}") == 0
        again = Home(tmp_path / f"new-{number}")
        await again.open()
        snapshot = await again.store.load()
        assert again.version >= before
        ids = [one.job_id for one in snapshot.records if isinstance(one, Job)]
        assert ids == [f"job_{index:04d}" for index in range(again.version)]
        for job_id in ids:
            assert (await again.streams.log_bounds(job_id)).last == 1
        await again.close()
    running = False
    await writing


async def test_a_store_that_is_closed_can_be_backed_up(home: Home, tmp_path: Path) -> None:
    await home.add()
    await home.close()
    assert restore(make(home), tmp_path / "new") == 0


async def test_secrets_travel_only_when_asked_and_never_replace_others(
    home: Home, tmp_path: Path
) -> None:
    (home.folder / ADMIN_KEY).write_text("sgk_of_then\n")
    folder = make(home)
    assert sorted(path.name for path in folder.iterdir()) == [STORE, MANIFEST, STREAMS]
    shutil.rmtree(folder)
    folder = make(home, "--secrets")
    for name in ("kept", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "kept" / ADMIN_KEY).write_text("sgk_of_now\n")
    assert restore(folder, tmp_path / "kept") == restore(folder, tmp_path / "new") == 0
    assert (tmp_path / "kept" / ADMIN_KEY).read_text() == "sgk_of_now\n"
    assert (tmp_path / "new" / ADMIN_KEY).read_text() == "sgk_of_then\n"
    assert (tmp_path / "new" / ADMIN_KEY).stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*/*.restored"))


async def test_nothing_is_overwritten(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(home)
    assert main(["make", str(folder), "--data-dir", str(home.folder)]) == EXIT_REFUSED
    assert "never overwrites" in capsys.readouterr().err
    assert restore(folder, home.folder) == EXIT_REFUSED
    assert "in use by a coordinator" in capsys.readouterr().err
    await home.close()
    assert restore(folder, home.folder) == EXIT_REFUSED
    assert f"has {STORE} already" in capsys.readouterr().err


@pytest.mark.parametrize("name", [STORE, STREAMS])
async def test_a_backup_that_was_changed_is_refused(
    name: str, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(home)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert restore(folder, tmp_path / "new") == EXIT_REFUSED
    assert "is not what was backed up" in capsys.readouterr().err
    (folder / name).unlink()
    assert restore(folder, tmp_path / "new") == EXIT_REFUSED
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"{STORE}.lock"]


HEAD = '"made_at":"","epoch":1,"version":1,"live_jobs":0,"files":'
FILE = '{"bytes":1,"sha256":""}'
NEWER = f'{{"format":2,{HEAD}{{}}}}'
NO_FILES = f'{{"format":1,{HEAD}{{}}}}'
ESCAPING = (
    f'{{"format":1,{HEAD}{{"coordinator.db":{FILE},"streams.db":{FILE},"../escaped":{FILE}}}}}'
)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format":1}', NEWER, NO_FILES, ESCAPING])
async def test_a_manifest_that_is_none_is_refused(text: str, home: Home, tmp_path: Path) -> None:
    folder = make(home)
    (folder / MANIFEST).write_text(text)
    assert restore(folder, tmp_path / "new") == EXIT_REFUSED
    assert not (tmp_path / "new").exists()


async def test_a_backup_of_a_damaged_store_is_thrown_away(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(40):
        await home.add()
    await home.close()
    path = home.folder / STORE
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    words = ["make", str(tmp_path / "backup"), "--data-dir", str(home.folder)]
    assert main(words) == EXIT_REFUSED
    assert "damaged" in (told := capsys.readouterr().err) or "malformed" in told
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


async def test_a_directory_that_lost_a_part_is_not_started_on(home: Home, tmp_path: Path) -> None:
    await home.add()
    await home.close()
    check_whole(home.folder)
    (home.folder / STREAMS).rename(tmp_path / "away")
    with pytest.raises(FileTrouble, match="empty-logs"):
        check_whole(home.folder)
    assert main(["empty-logs", "--data-dir", str(home.folder)]) == 0
    check_whole(home.folder)
    (home.folder / STORE).unlink()
    with pytest.raises(FileTrouble, match="is missing, and without it every job is"):
        check_whole(home.folder)
    (home.folder / STREAMS).unlink()
    check_whole(home.folder)
    (home.folder / ADMIN_KEY).touch()
    with pytest.raises(FileTrouble, match="restore a backup"):
        check_whole(home.folder)


async def test_a_first_start_that_was_cut_off_may_be_repeated(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / STORE)
    await store.open()
    await store.close()
    check_whole(tmp_path)


async def test_restored_nodes_are_to_be_heard_before_they_are_believed(
    home: Home, tmp_path: Path
) -> None:
    nodes = [node(f"n{number}") for number in range(3)]
    await home.store.commit(batch("nodes", *nodes), epoch=home.epoch, expected_version=home.version)
    assert restore(make(home), tmp_path / "new") == 0
    again = Home(tmp_path / "new")
    await again.open()
    found = [one for one in (await again.store.load()).records if isinstance(one, Node)]
    assert found == [replace(one, restored=True) for one in nodes]
    await again.close()


async def test_a_restored_epoch_never_goes_down(home: Home, tmp_path: Path) -> None:
    await home.close()
    with closing(sqlite3.connect(home.folder / STORE)) as connection:
        connection.execute("UPDATE leadership SET epoch = 1 << 40")
        connection.commit()
    assert restore(make(home), tmp_path / "new") == 0
    again = Home(tmp_path / "new")
    await again.open()
    assert again.epoch == (1 << 40) + 1
    await again.close()
