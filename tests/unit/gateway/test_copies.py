"""Copies in their file, and a file that does not do its part."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway import copies as module
from gateway.copies import Copies
from scaimind.v1 import job_pb2


def job(job_id: str, **fields: Any) -> tuple[str, job_pb2.Job]:
    return job_id, job_pb2.Job(job_id=job_id, **fields)


async def names(copies: Copies, tenant: str = "acme") -> list[str]:
    found = await copies.all("jobs", tenant)
    return sorted(job_pb2.Job.FromString(copy.body).job_id for copy in found)


async def test_what_is_kept_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "copies.db"
    copies = Copies(path, clock=lambda: 1000.0)
    copies.keep("jobs", "acme", [job("a", name="x"), job("b")])
    await copies.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Copies(path, clock=lambda: 1060.0)
    copy = await again.one("jobs", "acme", "a")
    assert copy is not None
    assert (job_pb2.Job.FromString(copy.body).name, copy.seen_at) == ("x", 1000.0)
    assert await names(again) == ["a", "b"]
    await again.close()


async def test_the_newest_is_kept_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    copies = Copies(tmp_path / "copies.db")
    copies.keep("jobs", "acme", [job("a", name="old"), job("b")])
    await copies.flush()
    copies.keep("jobs", "acme", [job("a", name="new"), ("b", None)])
    await copies.flush()
    copy = await copies.one("jobs", "acme", "a")
    assert copy is not None
    assert job_pb2.Job.FromString(copy.body).name == "new"
    assert await copies.one("jobs", "acme", "b") is None
    await copies.close()


async def test_tenants_are_apart(tmp_path: Path) -> None:
    copies = Copies(tmp_path / "copies.db")
    copies.keep("jobs", "acme", [job("a")])
    copies.keep("jobs", "other", [job("a", name="theirs")])
    await copies.flush()
    copy = await copies.one("jobs", "acme", "a")
    assert copy is not None
    assert not job_pb2.Job.FromString(copy.body).name
    assert await names(copies, "third") == []
    await copies.close()


async def test_copies_are_bounded_and_the_oldest_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PER_TENANT", 3)
    monkeypatch.setattr(module, "IN_ALL", 4)
    monkeypatch.setattr(module, "MAX_BYTES", 2000)
    now = [0.0]
    copies = Copies(tmp_path / "copies.db", clock=lambda: now[0])
    for number in range(5):
        now[0] = float(number)
        copies.keep("jobs", "acme", [job(f"a{number}")])
        await copies.flush()
    copies.keep("jobs", "acme", [job("large", name="x" * 2000)])
    copies.keep("jobs", "other", [job("b0"), job("b1")])
    await copies.flush()
    assert await names(copies) == ["a3", "a4"]
    assert await names(copies, "other") == ["b0", "b1"]
    now[0] += module.GOOD_FOR_S + 1
    assert await names(copies) == []
    await copies.close()


async def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    copies = Copies(tmp_path / "copies.db")
    copies.keep("jobs", "acme", [job("a"), job("b"), job("c"), job("b", name="again")])
    await copies.flush()
    assert await names(copies) == ["a", "b"]
    await copies.close()


def broken_by_text(path: Path) -> None:
    path.write_text("this is not a database, and long enough to be read as one " * 100)


def broken_by_a_folder(path: Path) -> None:
    path.mkdir()


def broken_by_another_schema(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE mod_scaimind_jobs (other TEXT)")
    file.close()


@pytest.mark.parametrize("harm", [broken_by_text, broken_by_a_folder, broken_by_another_schema])
async def test_a_file_that_cannot_be_used_is_left_alone(tmp_path: Path, harm: Any) -> None:
    path = tmp_path / "copies.db"
    harm(path)
    before = path.read_bytes() if path.is_file() else b""
    copies = Copies(path)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            copies.keep("jobs", "acme", [job("a")])
            await copies.flush()
            assert await names(copies) == []
        await copies.close()
    assert [entry["event"] for entry in logs] == ["copies_not_kept"]
    assert str(path) not in repr(logs)
    if harm is broken_by_text:
        assert path.read_bytes() == before


async def test_a_file_that_is_locked_or_full_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_MS", 1)
    monkeypatch.setattr(module, "AGAIN_AFTER_S", 0.0)
    connect = module.connect

    def small(path: Path) -> sqlite3.Connection:
        file = connect(path)
        file.execute("PRAGMA max_page_count = 12")
        return file

    monkeypatch.setattr(module, "connect", small)
    path = tmp_path / "copies.db"
    copies = Copies(path)
    copies.keep("jobs", "acme", [job("a")])
    await copies.flush()
    with structlog.testing.capture_logs() as logs:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        copies.keep("jobs", "acme", [job("b")])
        await copies.flush()
        assert await names(copies) == ["a"]
        other.close()
        copies.keep("jobs", "acme", [job("large", name="x" * 100_000)])
        await copies.flush()
        assert await names(copies) == ["a"]
    assert [entry["error"] for entry in logs] == ["OperationalError"] * 2
    copies.keep("jobs", "acme", [job("c")])
    await copies.flush()
    assert await names(copies) == ["a", "c"]
    await copies.close()


async def test_a_disk_that_hangs_is_waited_for_once_and_not_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_WITHIN_S", 0.05)
    monkeypatch.setattr(module, "CLOSE_WITHIN_S", 0.05)
    asked, answers = threading.Event(), threading.Event()
    connect = module.connect

    def hangs(path: Path) -> sqlite3.Connection:
        asked.set()
        answers.wait()
        return connect(path)

    monkeypatch.setattr(module, "connect", hangs)
    copies = Copies(tmp_path / "copies.db")
    with structlog.testing.capture_logs() as logs:
        copies.keep("jobs", "acme", [job("a")])
        assert [await names(copies) for _ in range(3)] == [[], [], []]
    assert [entry["event"] for entry in logs] == ["copies_not_read"]
    assert asked.is_set()
    answers.set()
    await copies.flush()
    monkeypatch.setattr(module, "READ_WITHIN_S", 60)
    assert await names(copies) == ["a"]
    answers.clear()
    copies._close()
    copies.keep("jobs", "acme", [job("b")])
    await copies.close()
    answers.set()
    assert await names(copies) == []
