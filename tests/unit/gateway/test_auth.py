"""Keys: resolved by digest, once, and not for long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.auth import ApiKeys, Identity, require
from gateway.status import Failure

ANN = Identity("acme", "ann", frozenset({"scaimind:view"}))


class Resolver:
    """Tells the same identity to everyone; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, digest: str) -> Identity:
        self.asked.append(digest)
        self.reached.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return ANN


async def ask(keys: ApiKeys, key: bytes = b"sgk_1") -> Identity:
    return await keys.identify({}, {b"authorization": b"Bearer " + key})


async def test_an_answer_is_kept_for_its_time_and_no_longer() -> None:
    now, resolver = [0.0], Resolver()
    keys = ApiKeys(resolver, ttl_s=2, clock=lambda: now[0])
    for now[0] in (0.0, 1.9, 2.0, 3.9):
        assert await ask(keys) is ANN
    assert len(resolver.asked) == 2


async def test_a_refusal_is_not_kept_and_forgets_the_key() -> None:
    now, resolver = [0.0], Resolver()
    keys = ApiKeys(resolver, ttl_s=2, clock=lambda: now[0])
    await ask(keys)
    now[0], resolver.failure = 3.0, Failure("AUTH_TOKEN_INVALID", message="no")
    for _ in range(2):
        with pytest.raises(Failure):
            await ask(keys)
    resolver.failure = None
    assert await ask(keys) is ANN
    assert len(resolver.asked) == 4


async def test_calls_that_come_together_ask_once_and_one_may_leave() -> None:
    resolver = Resolver()
    resolver.gate.clear()
    keys = ApiKeys(resolver)
    asking = [asyncio.create_task(ask(keys)) for _ in range(5)]
    await resolver.reached.wait()
    asking[0].cancel()
    resolver.gate.set()
    assert await asyncio.gather(*asking[1:]) == [ANN] * 4
    assert len(resolver.asked) == 1


async def test_the_number_of_kept_answers_is_bounded() -> None:
    resolver = Resolver()
    keys = ApiKeys(resolver, capacity=3, clock=lambda: 0.0)
    for number in range(5):
        await ask(keys, b"sgk_%d" % number)
    await ask(keys, b"sgk_4")
    assert len(resolver.asked) == 5
    await ask(keys, b"sgk_0")
    assert len(resolver.asked) == 6


async def test_only_digests_are_held() -> None:
    resolver = Resolver()
    keys = ApiKeys(resolver)
    await ask(keys, b"sgk_very_secret")
    assert "very_secret" not in repr(vars(keys)) + repr(resolver.asked)


@pytest.mark.parametrize("user", ["ü", "a\nb", "\x00"])
def test_an_identity_that_cannot_travel_is_refused(user: str) -> None:
    with pytest.raises(ValueError, match="ASCII"):
        Identity("acme", user, frozenset())


@pytest.mark.parametrize("tenant", ["", " ", "  "])
def test_an_identity_without_a_tenant_is_refused(tenant: str) -> None:
    with pytest.raises(ValueError, match="tenant"):
        Identity(tenant, "ann", frozenset())


def test_permissions() -> None:
    require(ANN, frozenset())
    require(ANN, frozenset({"scaimind:view", "scaimind:manage"}))
    with pytest.raises(Failure) as refused:
        require(ANN, frozenset({"scaimind:manage", "scaimind:evaluate"}))
    assert refused.value.http_status == 403
    assert "scaimind:evaluate or scaimind:manage" in refused.value.message


async def test_a_scheme_is_not_case_sensitive() -> None:
    keys: Any = ApiKeys(Resolver())
    assert await keys.identify({}, {b"authorization": b"bearer  sgk_1 "}) is ANN
