"""What users submitted: read together, kept within bounds, joined with records and figures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coordinator.core import records
from coordinator.core.decision import Changed
from coordinator.core.reasons import Reason
from coordinator.core.replacing import replace
from coordinator.rpc import documents as module
from coordinator.rpc.bounds import see
from coordinator.rpc.documents import Documents
from coordinator.store.memory import MemoryStore
from coordinator.store.protocol import Batch
from coordinator.streams.memory import MemoryStreams
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest
from tests.unit.rpc.requests import a_job, a_submit


class Counting(MemoryStore):
    """Remembers which documents were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    async def documents(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        self.asked.append(list(job_ids))
        return await super().documents(job_ids)


async def kept(*job_ids: str) -> tuple[Documents, Counting]:
    """Documents over a store that holds some."""
    store, streams = Counting(), MemoryStreams()
    await store.open()
    await streams.open()
    epoch = await store.acquire("test")
    events = tuple(
        Changed(record=record, cause=Reason.ACCEPTED, actor="", at_ms=1)
        for job_id in job_ids
        for record in (
            a_job(job_id),
            records.Documents(bodies=((job_id, see(a_submit().SerializeToString()).document),)),
        )
    )
    await store.commit(Batch(id="b", events=events), epoch=epoch, expected_version=0)
    return Documents(store, streams), store


async def test_many_are_read_at_once_and_only_once() -> None:
    documents, store = await kept("job_a", "job_b")
    jobs = [a_job("job_a"), a_job("job_b")]
    first = await documents.messages(jobs)
    assert await documents.messages(jobs) == first
    assert store.asked == [["job_a", "job_b"]]


async def test_a_record_carries_the_configs_that_were_submitted_and_no_others() -> None:
    documents, _ = await kept("job_a")
    message = await documents.message(a_job("job_a"))
    assert message.training_config == a_submit().training_config
    assert not message.HasField("output_config")
    assert (message.job_id, message.name) == ("job_a", "first")


async def test_a_record_without_its_document_is_still_told() -> None:
    documents, _ = await kept()
    message = await documents.message(a_job("job_a"))
    assert (message.job_id, message.HasField("training_config")) == ("job_a", False)
    assert await documents.bodies(["job_a"]) == {}


async def test_a_record_that_is_read_again_tells_what_has_changed_since() -> None:
    documents, _ = await kept("job_a")
    job = a_job("job_a")
    first = await documents.message(job)
    first.labels["changed"] = "by who reads"
    assert "changed" not in (await documents.message(job)).labels
    later = replace(job, priority=9, version=2)
    again = await documents.message(later)
    assert (again.priority, again.training_config.priority, again.version) == (9, 9, 2)
    assert (await documents.message(later)) == again


async def test_what_was_just_submitted_is_not_asked_of_the_store() -> None:
    documents, store = await kept()
    documents.remember({"job_a": see(a_submit().SerializeToString()).document})
    bodies = await documents.bodies(["job_a"])
    assert SubmitJobRequest.FromString(bodies["job_a"]) == a_submit()
    assert store.asked == []


@pytest.mark.parametrize(("limit", "value"), [("CACHE_JOBS", 2), ("CACHE_BYTES", 9_000)])
async def test_what_is_kept_is_bounded_and_the_least_used_goes_first(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(module, limit, value)
    documents, store = await kept()
    for job_id in ("job_a", "job_b"):
        documents.remember({job_id: b"x" * 1_000})
    await documents.bodies(["job_a"])
    documents.remember({"job_c": b"x" * 1_000})
    await documents.bodies(["job_a", "job_b", "job_c"])
    assert store.asked == [["job_b"]]
