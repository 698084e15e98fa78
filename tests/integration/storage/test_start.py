"""What lies in the data directory is not what was left there: the program refuses to start on it, says
what to do, and leaves everything as it is."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from coordinator.data_dir import ADMIN_KEY, STORE, STREAMS
from scaimind.v1 import job_pb2
from tests.contract.stores.samples import batch, job
from tests.integration.coordinator.follower import Follower
from tests.integration.coordinator.house import CHANNEL, Program, cut
from tests.integration.coordinator.test_restart import run
from tests.integration.storage.conftest import Site
from tests.unit.store.test_backup import Home


def _damaged(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[4096:] = os.urandom(len(content) - 4096)
        (folder / name).write_bytes(content)

    return damage


def _gone(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def _empty(folder: Path) -> None:
    (folder / STORE).write_bytes(b"")


def _newer(folder: Path) -> None:
    with closing(sqlite3.connect(folder / STORE)) as connection:
        connection.execute("PRAGMA user_version = 999")


def _unreadable_record(folder: Path) -> None:
    with closing(sqlite3.connect(folder / STORE)) as connection:
        connection.execute("UPDATE jobs SET body = '[1,{}]'")
        connection.commit()


def _swapped(folder: Path) -> None:
    (folder / STREAMS).replace(folder / STORE)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "damaged records": (_damaged(STORE), "restore a backup"),
    "damaged logs": (_damaged(STREAMS), "restore a backup"),
    "an empty file": (_empty, "restore it"),
    "a newer schema": (_newer, "upgrade this program"),
    "a record that is none": (_unreadable_record, "cannot be read.*restore a backup"),
    "logs without records": (_gone(STORE), "restore a backup"),
    "records without logs": (_gone(STREAMS), "empty-logs"),
    "a key without records": (_gone(STORE, STREAMS), "restore a backup"),
    "logs in the place of records": (_swapped, "another program"),
}


@pytest.mark.parametrize(("hurt", "said"), FAULTS.values(), ids=FAULTS)
async def test_it_does_not_start_and_says_what_to_do(
    hurt: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    await home.open()
    await home.add()
    await home.store.commit(
        batch("more", *(job(number) for number in range(1, 40))),
        epoch=home.epoch,
        expected_version=home.version,
    )
    await home.close()
    (tmp_path / ADMIN_KEY).write_text("sgk_of_then\n")
    hurt(tmp_path)
    before = {path.name: path.stat().st_size for path in tmp_path.glob("*.db")}
    status, errors = await run(tmp_path, "127.0.0.1:0")
    assert (status, bool(re.search(said, errors))) == (3, True), errors
    assert "Traceback" not in errors
    assert {path.name: path.stat().st_size for path in tmp_path.glob("*.db")} == before


async def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    program = Program(tmp_path)
    (tmp_path / "program.log").symlink_to("/dev/full")
    await program.start()
    async with grpc.aio.insecure_channel(program.address, options=CHANNEL) as channel:
        await program.caller(channel, "admin.key").submit()
    assert await program.stop() == 0
    await program.close()


async def test_lost_logs_are_done_without_once_somebody_has_said_so(site: Site) -> None:
    job_id, lease_id = await site.running_job()
    await site.agent.says(job_id, "before")
    await site.program.kill()
    for path in site.folder.glob(f"{STREAMS}*"):
        if path.suffix != ".lock":
            path.unlink()
    status, errors = await run(site.folder, "127.0.0.1:0")
    assert (status, "empty-logs" in errors) == (3, True)
    words = ("empty-logs", "--data-dir", str(site.folder))
    said = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coordinator.backup", *words, stdout=asyncio.subprocess.DEVNULL
    )
    assert await said.wait() == 0
    await cut(site.channel)
    await site.program.start()
    await site.channel.channel_ready()
    await site.agent.sync()
    await site.agent.says(job_id, "after", gap_before=True)
    follower = Follower.of_log(site.admin, job_id)
    assert await follower.until(2) == ["after"]
    assert follower.kinds == ["gap", "log"]
    await site.agent.ends(lease_id)
    assert (await site.admin.job(job_id)).status == job_pb2.Job.COMPLETED
