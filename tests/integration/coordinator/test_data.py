"""Checks of data as a caller sees them, against servers that are really there."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coordinator.data.terms import TOO_LONG
from scaimind.service.reach.guard import NOT_ALLOWED
from scaimind.service.reach.stores import NOT_BELOW
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House, open_house
from tests.support.files import BUCKET, Answer, serving, stalling
from tests.support.written import written

LOCAL = "127.0.0.1/32"
LINES = b'{"text": "one"}\n{"text": "two"}\n'
CANARY = "canary-token-6d1f"


async def validated(caller: Caller, *sources: dict[str, Any]) -> Any:
    request = api.ValidateDataRequest()
    for source in sources:
        request.sources.add(**source)
    return await caller.call("ValidateData", request)


def told(answer: Any) -> list[tuple[bool, bool, str]]:
    return [(one.reachable, one.parseable, one.error) for one in answer.results]


async def test_sources_of_all_kinds_are_answered_in_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_bytes(LINES)
    with serving({"/a.jsonl": Answer(LINES), "/moved": Answer(b"", status=302)}) as server:
        words = ("--data-roots", str(data), "--data-networks", LOCAL)
        async with open_house(tmp_path / "house", *words) as house:
            answer = await validated(
                house.admin,
                {"path": str(data / "a.jsonl")},
                {"path": f"{server.url}/a.jsonl"},
                {"path": f"{server.url}/none.jsonl"},
                {"path": f"{server.url}/moved", "format": "jsonl"},
                {"path": "/etc/passwd", "format": "text"},
                {"path": "http://169.254.169.254/latest/meta-data"},
            )
    assert not answer.valid
    assert told(answer) == [
        (True, True, ""),
        (True, True, ""),
        (False, False, "there is no such file"),
        (False, False, "it answers with a redirect; those are not followed"),
        (False, False, NOT_BELOW),
        (False, False, NOT_ALLOWED),
    ]
    for one in answer.results[:2]:
        assert (one.format, one.num_samples, one.size_bytes) == ("jsonl", 2, len(LINES))
    assert answer.results[0].path == str(data / "a.jsonl")


async def test_without_settings_no_file_and_no_private_address_is_read(house: House) -> None:
    with serving({"/a.jsonl": Answer(LINES)}) as server:
        answer = await validated(
            house.admin,
            {"path": str(house.folder / "admin.key"), "format": "text"},
            {"path": f"{server.url}/a.jsonl"},
            {"path": "s3://bucket/a.jsonl"},
            {"path": "scaidrive://acme/a.jsonl"},
        )
        assert server.asked == []
    assert [one[2] for one in told(answer)] == [
        NOT_BELOW,
        NOT_ALLOWED,
        NOT_BELOW,
        "scaidrive:// is not set up here",
    ]


async def test_the_coordinators_own_secrets_stay_shut_below_an_open_root(tmp_path: Path) -> None:
    async with open_house(tmp_path / "house", "--data-roots", "/") as house:
        answer = await validated(
            house.admin, {"path": str(house.folder / "gateway.secret"), "format": "text"}
        )
    assert told(answer) == [(False, False, NOT_BELOW)]


@pytest.mark.parametrize(("scheme", "flag"), [("s3", "--data-s3-url"), ("gs", "--data-gs-url")])
async def test_a_bucket_is_read_below_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, flag: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"] * 500}), table)
    objects = {"acme/a.jsonl": LINES, "acme/d/b.parquet": table.getvalue(), "rival/x.jsonl": LINES}
    with serving({}, objects=objects) as server:
        roots = f"{scheme}://{BUCKET}/{{tenant}}"
        # the first import of a store's library may take long
        words = ("--data-roots", roots, flag, server.url, "--data-check-s", "60")
        async with open_house(tmp_path / "house", *words) as house:
            caller = await house.caller("acme")
            answer = await validated(
                caller,
                {"path": f"{scheme}://{BUCKET}/acme/a.jsonl"},
                {"path": f"{scheme}://{BUCKET}/acme/d/b.parquet"},
                {"path": f"{scheme}://{BUCKET}/acme/d", "format": "parquet"},
                {"path": f"{scheme}://{BUCKET}/acme/none.jsonl"},
                {"path": f"{scheme}://{BUCKET}/rival/x.jsonl"},
                {"path": f"{scheme}://{BUCKET}/acme/../rival/x.jsonl"},
            )
    assert [one[2] for one in told(answer)] == [
        "",
        "",
        "",
        "there is no such file",
        NOT_BELOW,
        NOT_BELOW,
    ]
    assert [one.num_samples for one in answer.results[:3]] == [2, 500, 500]
    assert answer.results[1].size_bytes == len(table.getvalue())


async def test_a_service_gets_the_callers_own_token_and_nobody_else_sees_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Answer(LINES, token=CANARY)
    with serving(
        {"/files/acme/a.jsonl": file, "/files/acme/b.jsonl": Answer(LINES, token="x")}
    ) as it:
        words = ("--data-scaidrive-url", f"{it.url}/files", "--log-level", "DEBUG")
        async with open_house(tmp_path / "house", *words) as house:
            secret = house.now.parts.api_secret
            caller = Caller(
                house.channel,
                "",
                x_api_secret=secret,
                x_tenant_id="acme",
                x_user_id="ann",
                x_permissions="scaimind:manage",
                x_scaidrive_token=CANARY,
            )
            answer = await validated(
                caller,
                {"path": "scaidrive://acme/a.jsonl"},
                {"path": "scaidrive://acme/b.jsonl"},
                {"path": "scaiatlas://model"},
            )
            bare = await validated(house.admin, {"path": "scaidrive://acme/a.jsonl"})
    assert told(answer) == [
        (True, True, ""),
        (False, False, "access is denied there"),
        (False, False, "scaiatlas:// is not set up here"),
    ]
    assert told(bare) == [(False, False, "the call came without a token for scaidrive")]
    assert CANARY not in str(answer)
    assert CANARY not in "".join(capfd.readouterr())
    kept = dict(written(tmp_path))
    assert kept
    assert not any(CANARY.encode() in content for content in kept.values())


async def test_a_server_that_never_ends_holds_up_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    with stalling() as url:
        words = ("--data-networks", LOCAL, "--data-roots", str(tmp_path), "--data-check-s", "3")
        async with open_house(tmp_path / "house", *words) as house:
            slow = asyncio.create_task(
                validated(
                    house.admin,
                    {"path": f"{url}/a.jsonl"},
                    {"path": str(tmp_path / "a.jsonl")},
                )
            )
            await house.admin.job(await house.admin.submit())  # the coordinator goes on deciding
            answer = await slow
    assert told(answer) == [(False, False, TOO_LONG), (True, True, "")]


async def test_the_cache_tells_what_each_node_keeps(house: House) -> None:
    agent = FakeAgent(house.agents, "node-a")
    await agent.sync()
    answer = await house.admin.call("GetDataCache", api.GetDataCacheRequest())
    assert [(one.node_id, len(one.entries), one.budget_bytes) for one in answer.nodes] == [
        ("node-a", 0, 0)
    ]
    assert (answer.entries_count, answer.total_bytes) == (0, 0)
    one = await house.admin.call("GetDataCache", api.GetDataCacheRequest(node_id="node-a"))
    assert len(one.nodes) == 1
    fault = await house.admin.refused("GetDataCache", api.GetDataCacheRequest(node_id="none"))
    assert fault.reason == "NODE_NOT_FOUND"
