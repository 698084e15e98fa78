"""The process that checks: bounded in time, and shared fairly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coordinator.data.checker import TENANT_WAITING_MAX, WAITING_MAX, Busy, Checker
from coordinator.data.terms import TOO_LONG, Finding, Rules, Source
from tests.support.files import stalling


async def asked(checker: Checker, path: str, tenant_id: str = "acme") -> Finding:
    source = Source(path=path, format="text")
    (finding,) = await checker.check([source], tenant_id=tenant_id, tokens={})
    return finding


async def test_one_tenants_dead_servers_do_not_hold_up_another(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    rules = Rules(roots=(str(tmp_path),), networks=("127.0.0.1/32",), source_s=60, all_s=8)
    checker = Checker(rules)
    with stalling() as url:
        slow = [asyncio.create_task(asked(checker, f"{url}/a.txt")) for _ in range(4)]
        await asyncio.sleep(0)
        assert (await asked(checker, str(tmp_path / "a.txt"), "other")).num_samples == 1
        assert not any(one.done() for one in slow)
        assert {(await one).error for one in slow} == {TOO_LONG}
    assert (await asked(checker, str(tmp_path / "a.txt"))).num_samples == 1


async def test_more_calls_than_may_wait_are_refused() -> None:
    checker = Checker(Rules())
    calls = [
        asyncio.create_task(asked(checker, "/a", f"tenant-{number // TENANT_WAITING_MAX}"))
        for number in range(WAITING_MAX)
    ]
    await asyncio.sleep(0)
    for tenant_id in ("tenant-0", "tenant-x"):
        with pytest.raises(Busy):
            await asked(checker, "/a", tenant_id)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (await asked(checker, "/a", "tenant-0")).error
