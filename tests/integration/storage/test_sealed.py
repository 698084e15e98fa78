"""What users submitted, sealed in the store: readable with the key alone, and not started without it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.store.protocol import StoreLost
from coordinator.store.seal import Seal
from coordinator.store.sealed import MARK
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import a_submit, open_house

CANARY = "canary-of-a-sealed-store"


def a_key(folder: Path, name: str, text: str) -> tuple[str, str]:
    """The flag that names a key, in a file of its own."""
    path = folder / name
    path.write_text(text + "\n")
    return "--seal-key-file", str(path)


def documents(folder: Path) -> list[bytes]:
    with closing(sqlite3.connect(folder / "coordinator.db")) as store:
        return [body for (body,) in store.execute("SELECT body FROM documents ORDER BY number")]


async def a_secret_job(folder: Path, *words: str) -> str:
    """Submits a job with a secret to a coordinator of its own; answers the id."""
    async with open_house(folder, *words) as house:
        await FakeAgent(house.agents).sync()
        request = a_submit()
        request.training_config.environment["TOKEN"] = CANARY
        return str((await house.admin.call("SubmitJob", request)).job_id)


async def test_what_was_submitted_is_read_with_its_key_and_lies_nowhere_without(
    tmp_path: Path,
) -> None:
    before_id = await a_secret_job(tmp_path)
    key = a_key(tmp_path, "seal.key", "a-key-of-more-than-thirty-two-letters")
    job_id = await a_secret_job(tmp_path, *key)
    plain, sealed = documents(tmp_path)
    assert CANARY.encode() in plain
    assert sealed.startswith(MARK)
    assert CANARY.encode() not in sealed
    async with open_house(tmp_path, *key) as house:
        for one in (before_id, job_id):
            job = await house.admin.job(one)
            assert job.training_config.environment["TOKEN"] == CANARY
        agent = FakeAgent(house.agents)
        await agent.granted(2)
        specs = {spec.job_id: spec.job for spec in agent.specs.values()}
        assert specs[job_id].training_config.environment["TOKEN"] == CANARY


async def test_without_its_key_or_with_another_it_is_not_started(tmp_path: Path) -> None:
    key = a_key(tmp_path, "seal.key", "a-key-of-more-than-thirty-two-letters")
    await a_secret_job(tmp_path, *key)
    other = a_key(tmp_path, "other.key", "another-key-of-more-than-thirty-two")
    for words, hint in (((), "name the key's file"), (other, "another key")):
        with pytest.raises(StoreLost, match=hint):
            async with open_house(tmp_path, *words):
                pass
    async with open_house(tmp_path, *key) as house:
        await house.admin.call("ListJobs", api.ListJobsRequest())


def test_a_document_that_was_touched_or_moved_is_not_opened() -> None:
    seal = Seal("a-secret")
    body = os.urandom(100)
    kept = seal.close("job_a", body)
    assert seal.open("job_a", kept) == body
    assert seal.close("job_a", body) != kept
    damaged = kept[:-1] + bytes([kept[-1] ^ 1])
    for job_id, found in (
        ("job_b", kept),
        ("job_a", damaged),
        ("job_a", MARK),
        ("job_a", kept[:20]),
    ):
        with pytest.raises(StoreLost):
            seal.open(job_id, found)
