"""Rates from outside, with real programs: counted in one gateway, and by several in one Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx

from gateway.rates_redis import PREFIX
from scaimind.client import AsyncClient
from tests.e2e.gateways import MODULE, gateway
from tests.integration.coordinator.house import Program
from tests.support.redis_server import shared as shared_server

OF_A_KEY, OF_A_TENANT = 3, 7
FLAGS = (
    *("--rate-key", str(OF_A_KEY), "--rate-user", "0"),
    *("--rate-tenant", str(OF_A_TENANT)),
)


@asynccontextmanager
async def coordinator(
    folder: Path, users: tuple[str, str, str] = ("", "", "")
) -> AsyncIterator[tuple[Program, list[str]]]:
    """A coordinator, and keys: three of one tenant, one of another for the first one's user."""
    made = Program(folder)
    await made.start()
    try:
        admin = (folder / "admin.key").read_text().strip()
        async with AsyncClient(made.address, admin) as client:
            whose = [("acme", user) for user in users] + [("other", users[0])]
            keys = [
                await client.create_key(tenant, user_id=user, permissions=["view"])
                for tenant, user in whose
            ]
        yield made, [one.key for one in keys]
    finally:
        await made.close()


async def ask(base: str, key: str) -> httpx.Response:
    """A read."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        headers = {"authorization": f"Bearer {key}"}
        return await client.get(f"{base}{MODULE}/jobs", headers=headers)


def refused(answer: httpx.Response) -> bool:
    """Whether it is a refusal, whole and in order, and not an answer."""
    if answer.status_code == 200:
        assert int(answer.headers["x-ratelimit-remaining"]) >= 0
        return False
    assert answer.status_code == 429
    error = answer.json()["error"]
    assert error["code"] == "RATE_LIMITED"
    wait_s = int(answer.headers["retry-after"])
    assert wait_s == error["retry_after"]
    assert 1 <= wait_s <= 60
    assert answer.headers["x-ratelimit-remaining"] == "0"
    return True


async def spend(bases: list[str], keys: list[str]) -> None:
    """Uses up a key, then its tenant, over gateways in turn; nobody else pays for it."""
    one, two, three, foreign = keys
    turns = [bases[number % len(bases)] for number in range(OF_A_KEY + 2)]
    asked = [refused(await ask(base, one)) for base in turns]
    assert asked == [False] * OF_A_KEY + [True] * 2, "the key's own"
    for key, left in ((two, 3), (three, 1)):
        asked = [refused(await ask(bases[-1], key)) for _ in range(left + 1)]
        assert asked == [False] * left + [True], "another key's, as long as the tenant has any"
    assert not refused(await ask(bases[0], foreign)), "another tenant's"


async def test_one_gateway_counts_by_key_and_by_tenant(tmp_path: Path) -> None:
    async with (
        coordinator(tmp_path) as (made, keys),
        gateway(tmp_path, made.address, *FLAGS) as base,
    ):
        await spend([base], keys)


async def test_the_keys_of_a_user_count_together_and_not_for_another_user(tmp_path: Path) -> None:
    flags = ("--rate-key", "0", "--rate-user", "4", "--rate-tenant", "0")
    users = ("ann", "ann", "bob")
    async with (
        coordinator(tmp_path, users) as (made, (one, two, bobs, foreign)),
        gateway(tmp_path, made.address, *flags) as base,
    ):
        asked = [refused(await ask(base, key)) for key in (one, two, one, two, one, two)]
        assert asked == [False] * 4 + [True] * 2
        assert not refused(await ask(base, bobs)), "another user of the tenant"
        assert not refused(await ask(base, foreign)), "the same name in another tenant"


async def test_gateways_that_share_a_redis_count_together(tmp_path: Path) -> None:
    redis = shared_server()
    with closing(redis.client()) as client:
        for name in client.scan_iter(f"{PREFIX}*"):
            client.delete(name)
    flags = (*FLAGS, "--rate-store", redis.url)
    async with (
        coordinator(tmp_path) as (made, keys),
        gateway(tmp_path, made.address, *flags) as one,
    ):
        async with gateway(tmp_path, made.address, *flags) as other:
            await spend([one, other], keys)
        assert refused(await ask(one, keys[0])), "what the one that has gone had counted"
