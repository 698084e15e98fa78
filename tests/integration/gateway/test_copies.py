"""Reads while the coordinator is away."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from gateway.catalog import Catalog
from gateway.copies import Copies
from scaimind.v1 import job_pb2
from tests.integration.gateway.scripted import ALL_KEY, World, eventually, refuse, world
from tests.integration.gateway.test_requests import SUBMIT

JOBS = [job_pb2.Job(job_id=f"job_{n}", name="x" if n % 2 else "y") for n in range(5)]


async def listed(request: Any, context: Any) -> Any:
    answer = Catalog.default()
    response = next(one for one in answer.methods if one.name == "ListJobs").response_class()
    for job in JOBS:
        response.jobs.add().ParseFromString(job.SerializeToString())
    return response.FromString(response.SerializeToString())


async def found(request: Any, context: Any) -> Any:
    for job in JOBS:
        if job.job_id == request.job_id:
            return job
    return await refuse(context, grpc.StatusCode.NOT_FOUND, "no such job")


@asynccontextmanager
async def keeping(path: Path, *, timeout_s: float = 30.0) -> AsyncIterator[tuple[World, Copies]]:
    copies = Copies(path)
    async with world(copies=copies, timeout_s=timeout_s) as made:
        made.coordinator.scripts |= {"ListJobs": listed, "GetJob": found, "CancelJob": found}
        yield made, copies
        await made.gateway.close()


def fresh(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 200
        and "x-scaimind-stale" not in answer.headers
        and "stale" not in answer.json()["meta"]
    )


async def test_lists_and_reads_are_answered_from_copies_and_marked(tmp_path: Path) -> None:
    async with keeping(tmp_path / "copies.db") as (made, copies):
        assert fresh(await made.client.get("/jobs"))
        await copies.flush()
        await made.coordinator.stop()
        for path in ("/jobs", "/jobs/job_3"):
            answer = await made.client.get(path)
            assert answer.status_code == 200
            meta = answer.json()["meta"]
            assert meta["stale"] is True
            assert 0 <= meta["stale_age_seconds"] <= 60
            assert answer.headers["x-scaimind-stale"] == str(meta["stale_age_seconds"])
            assert answer.headers["warning"].startswith("110 ")
        assert answer.json()["data"]["name"] == "x"
        assert len((await made.client.get("/jobs")).json()["data"]["jobs"]) == 5


async def test_everything_else_is_a_friendly_503(tmp_path: Path) -> None:
    async with keeping(tmp_path / "copies.db") as (made, copies):
        await made.client.get("/jobs")
        await copies.flush()
        await made.coordinator.stop()
        client = made.client
        answers = [
            await client.get("/jobs/unseen"),
            await client.get("/jobs?page_token=of-the-coordinator"),
            await client.get("/cluster"),
            await client.get("/cluster/nodes"),
            await client.get("/queue"),
            await client.get("/jobs/job_1/metrics"),
            await client.post("/jobs", json=SUBMIT),
            await client.get("/jobs/job_1/logs"),
            await client.post("/jobs/job_1/cancel"),
        ]
        for answer in answers:
            assert answer.status_code == 503, answer.request.url
            assert answer.json()["error"]["code"] == "COORDINATOR_UNAVAILABLE"
            assert int(answer.headers["retry-after"]) >= 1
            assert "127.0.0.1" not in answer.text
        assert (await client.get("/jobs?page_size=1000")).status_code == 422
        unknown = {"authorization": "Bearer sgk_never_seen"}
        assert (await client.get("/jobs", headers=unknown)).status_code == 503


async def test_an_answer_is_fresh_again_once_the_coordinator_is_back(tmp_path: Path) -> None:
    async with keeping(tmp_path / "copies.db") as (made, copies):
        await made.client.get("/jobs")
        await copies.flush()
        await made.coordinator.stop()
        assert not fresh(await made.client.get("/jobs"))
        await made.coordinator.start(Catalog.default())

        async def is_back() -> bool:
            return fresh(await made.client.get("/jobs"))

        await eventually(is_back)


async def test_a_coordinator_that_hangs_is_away_too(tmp_path: Path) -> None:
    async def hang(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    async with keeping(tmp_path / "copies.db", timeout_s=0.5) as (made, copies):

        async def is_read() -> bool:
            return fresh(await made.client.get("/jobs"))

        await eventually(is_read)
        await copies.flush()
        made.coordinator.scripts["GetJob"] = hang
        answer = await made.client.get("/jobs/job_1")
        assert (answer.status_code, answer.json()["meta"]["stale"]) == (200, True)


async def test_where_a_coordinator_hangs_what_is_no_copy_is_504(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    async with keeping(tmp_path / "copies.db", timeout_s=0.5) as (made, copies):
        monkeypatch.setattr(made.gateway.authenticator, "_ttl_s", 0.0)
        assert fresh(await made.client.get("/jobs"))
        await copies.flush()
        monkeypatch.setattr(made.coordinator, "resolve", hang)
        refused = await made.client.post("/jobs/job_1/cancel")
        assert (refused.status_code, refused.json()["error"]["code"]) == (504, "BACKEND_TIMEOUT")
        assert (await made.client.get("/jobs/job_1")).json()["meta"]["stale"] is True


async def test_a_refusal_is_no_reason_to_answer_from_copies(tmp_path: Path) -> None:
    async def refused(request: Any, context: Any) -> None:
        await refuse(context, grpc.StatusCode.NOT_FOUND, "gone")

    async with keeping(tmp_path / "copies.db") as (made, copies):
        await made.client.get("/jobs")
        await copies.flush()
        made.coordinator.scripts["GetJob"] = refused
        assert (await made.client.get("/jobs/job_1")).status_code == 404
        await copies.flush()
        await made.coordinator.stop()
        assert (await made.client.get("/jobs/job_1")).status_code == 503
        assert (await made.client.get("/jobs/job_2")).status_code == 200


async def test_a_key_that_was_revoked_reads_nothing(tmp_path: Path) -> None:
    async with keeping(tmp_path / "copies.db") as (made, copies):
        await made.client.get("/jobs")
        await copies.flush()
        made.coordinator.grants.pop(ALL_KEY)

        async def is_revoked() -> bool:
            return (await made.client.get("/jobs")).status_code == 401

        await eventually(is_revoked)
        await made.coordinator.stop()
        assert (await made.client.get("/jobs")).status_code == 503


async def test_a_file_that_fails_never_fails_a_read(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database " * 1000)
    locked = tmp_path / "locked.db"
    holder = sqlite3.connect(locked, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    for path in (garbage, locked, Path("/dev/full"), tmp_path):
        async with keeping(path) as (made, copies):
            for _ in range(3):
                assert fresh(await made.client.get("/jobs"))
                assert fresh(await made.client.get("/jobs/job_1"))
                await copies.flush()
            await made.coordinator.stop()
            assert (await made.client.get("/jobs")).status_code == 503
    holder.close()
