"""The provider's keys: which are taken, and when they are fetched."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from scaimind.service.jwks import KeySet, from_file, read_keys
from scaimind.service.roles import KeysOutOfReach
from tests.support.provider import EC_KEY, RSA_KEY, jwk

RSA, EC = jwk(RSA_KEY, "r"), jwk(EC_KEY, "e")


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


class Source:
    """A provider in memory."""

    def __init__(self, *keys: Any) -> None:
        self.keys: tuple[Any, ...] | None = keys
        self.fetched = 0
        self.asked, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def __call__(self) -> bytes:
        self.fetched += 1
        self.asked.set()
        await self.gate.wait()
        if self.keys is None:
            raise OSError("away")
        return document(*self.keys)


def test_each_kind_of_key_is_for_one_algorithm() -> None:
    keys = read_keys(document(RSA, EC))
    assert {name: key.algorithm for name, key in keys.items()} == {"r": "RS256", "e": "ES256"}


@pytest.mark.parametrize(
    "other",
    [
        RSA | {"alg": "RS512"},
        RSA | {"alg": "HS256"},
        RSA | {"alg": None},
        RSA | {"use": "enc"},
        RSA | {"key_ops": ["encrypt"]},
        RSA | {"kid": ""},
        RSA | {"kid": 7},
        RSA | {"kid": "k" * 257},
        RSA | {"n": "AQAB"},
        RSA | {"n": 5},
        {name: value for name, value in RSA.items() if name != "kid"},
        EC | {"alg": "RS256"},
        EC | {"x": EC["y"], "y": EC["x"]},
        jwk(ec.generate_private_key(ec.SECP384R1()), "p384"),
        jwk(rsa.generate_private_key(public_exponent=65537, key_size=1024), "weak"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "h", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "h", "alg": "RS256"},
        {},
        "text",
        None,
    ],
)
def test_keys_for_anything_else_are_passed_over(other: Any) -> None:
    good = EC | {"kid": "good"}
    assert set(read_keys(document(good, other))) == {"good"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"keys": 1}',
        b'{"keys": []}',
        document(RSA, RSA),
        document(*[RSA] * 101),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_whole(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_keys(text)


async def test_keys_are_fetched_once_and_again_after_their_time() -> None:
    now, source = [0.0], Source(RSA)
    keys = KeySet(source, clock=lambda: now[0])
    for now[0], fetched in ((0.0, 1), (299.0, 1), (300.0, 2), (301.0, 2)):
        assert await keys.key("r") is not None
        assert source.fetched == fetched


async def test_unknown_ids_fetch_seldom_whatever_callers_make_up() -> None:
    now, source = [0.0], Source(RSA)
    keys = KeySet(source, clock=lambda: now[0])
    for number in range(100):
        assert await keys.key(f"made-up-{number}") is None
    assert source.fetched == 1
    now[0], source.keys = 10.0, (RSA, EC)
    assert await keys.key("e") is not None
    assert source.fetched == 2


async def test_a_key_that_was_taken_back_is_good_no_more() -> None:
    now, source = [0.0], Source(RSA, EC)
    keys = KeySet(source, clock=lambda: now[0])
    assert await keys.key("e") is not None
    now[0], source.keys = 300.0, (RSA,)
    assert await keys.key("e") is None


async def test_known_keys_outlive_an_outage_but_not_for_ever() -> None:
    now, source = [0.0], Source(RSA)
    keys = KeySet(source, clock=lambda: now[0])
    assert await keys.key("r") is not None
    source.keys = None
    with structlog.testing.capture_logs() as logs:
        for now[0] in (300.0, 305.0, 311.0, 86_399.0):
            assert await keys.key("r") is not None
        assert source.fetched == 4
        now[0] = 86_400.0
        with pytest.raises(KeysOutOfReach):
            await keys.key("r")
    assert {entry["event"] for entry in logs} == {"jwks_not_fetched"}


async def test_callers_that_come_together_share_one_fetch_and_one_may_leave() -> None:
    source = Source(RSA)
    source.gate.clear()
    keys = KeySet(source)
    asking = [asyncio.create_task(keys.key("r")) for _ in range(5)]
    await source.asked.wait()
    asking[0].cancel()
    source.gate.set()
    assert all(await asyncio.gather(*asking[1:]))
    assert source.fetched == 1


async def test_keys_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys, now = KeySet(from_file(file), clock=lambda: now[0]), [0.0]
    with structlog.testing.capture_logs(), pytest.raises(KeysOutOfReach):
        await keys.key("r")
    file.write_bytes(document(RSA))
    now[0] = 10.0
    assert await keys.key("r") is not None
    file.write_bytes(b" " * 300_000)
    with pytest.raises(ValueError, match="too large"):
        await from_file(file)()
