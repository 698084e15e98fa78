"""TLS on the gRPC port: who is answered, who is not, and a certificate that is renewed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.main import running
from gateway.upstream import Upstream
from scaimind.client import AsyncClient, Client, InvalidArgument, Tls, Unavailable
from tests.integration.coordinator.house import settings
from tests.support.certificates import Authority, Pair

HERE = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a coordinator serves, and its admin's key."""

    address: str
    key: str

    async def answers(self, **tls: object) -> bool:
        """Whether it answers one who speaks TLS so; the connection is a new one."""
        words = {name: str(value) for name, value in tls.items()}
        made = AsyncClient(self.address, self.key, tls=Tls(**words), retry_s=0, timeout_s=60)
        async with made as client:
            try:
                await client.cluster()
            except Unavailable:
                return False
        return True


@asynccontextmanager
async def serving(folder: Path, pair: Pair, *words: str) -> AsyncIterator[Place]:
    """A coordinator with a certificate."""
    files = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key))
    chosen = settings(folder, "127.0.0.1:0", "--stop-grace-s", "1", *files, *words)
    async with running(chosen) as now:
        yield Place(f"127.0.0.1:{now.port}", (folder / "admin.key").read_text().strip())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


async def test_only_who_speaks_tls_and_knows_the_authority_is_served(
    tmp_path: Path, authority: Authority
) -> None:
    other = Authority(tmp_path / "other", "another authority")
    async with serving(tmp_path, authority.pair("coordinator", *HERE)) as place:
        assert await place.answers(ca=authority.ca)
        assert not await place.answers()
        assert not await place.answers(ca=other.ca)
        assert not await place.answers(ca="system")


async def test_the_name_in_the_certificate_counts(tmp_path: Path, authority: Authority) -> None:
    async with serving(tmp_path, authority.pair("coordinator", "mind.example")) as place:
        assert not await place.answers(ca=authority.ca)
        assert not await place.answers(ca=authority.ca, name="other.example")
        assert await place.answers(ca=authority.ca, name="mind.example")


async def test_callers_must_present_a_certificate_where_that_is_asked_for(
    tmp_path: Path, authority: Authority
) -> None:
    pair, caller = authority.pair("coordinator", *HERE), authority.pair("caller")
    stranger = Authority(tmp_path / "other", "another authority").pair("stranger")
    async with serving(tmp_path, pair, "--tls-ca", str(authority.ca)) as place:
        assert await place.answers(ca=authority.ca, cert=caller.cert, key=caller.key)
        assert not await place.answers(ca=authority.ca)
        assert not await place.answers(ca=authority.ca, cert=stranger.cert, key=stranger.key)


async def test_the_gateway_speaks_tls_to_the_coordinator(
    tmp_path: Path, authority: Authority
) -> None:
    pair, own = authority.pair("coordinator", *HERE), authority.pair("gateway")
    async with serving(tmp_path, pair, "--tls-ca", str(authority.ca)) as place:
        good = Tls(ca=str(authority.ca), cert=str(own.cert), key=str(own.key))
        for tls, expected in ((good, True), (Tls(ca=str(authority.ca)), False), (None, False)):
            upstream = Upstream(place.address, tls=tls)
            ready = await upstream.ready()
            while expected and not ready:  # a first connection may take longer than it waits
                ready = await upstream.ready()
            assert ready is expected
            await upstream.close()


async def test_a_renewed_certificate_is_taken_without_a_restart(
    tmp_path: Path, authority: Authority
) -> None:
    pair = authority.pair("coordinator", *HERE)
    async with serving(tmp_path, pair) as place:
        assert await place.answers(ca=authority.ca)
        pair.cert.write_text("half written")
        assert await place.answers(ca=authority.ca)
        later = Authority(tmp_path / "later", "the next authority")
        renewed = later.pair("renewed", *HERE)
        pair.key.write_bytes(renewed.key.read_bytes())
        pair.cert.write_bytes(renewed.cert.read_bytes())
        assert await place.answers(ca=later.ca)
        assert not await place.answers(ca=authority.ca)


@pytest.mark.parametrize(
    "words",
    [
        ("--tls-cert", "{cert}"),
        ("--tls-key", "{key}"),
        ("--tls-cert", "{cert}", "--tls-key", "{other}"),
        ("--tls-cert", "{cert}", "--tls-key", "/does/not/exist"),
        ("--tls-cert", "{key}", "--tls-key", "{key}"),
        ("--tls-ca", "{ca}"),
        ("--tls-cert", "{cert}", "--tls-key", "{key}", "--tls-ca", "{key}"),
        ("--tls-cert", "{cert}", "--tls-key", "{key}", "--tls-ca", "system"),
    ],
)
def test_files_that_cannot_be_served_with_are_refused_at_the_start(
    tmp_path: Path,
    authority: Authority,
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair, other = authority.pair("coordinator"), authority.pair("other")
    files = {"cert": pair.cert, "key": pair.key, "other": other.key, "ca": authority.ca}
    with pytest.raises(SystemExit) as ended:
        settings(tmp_path, "127.0.0.1:0", *(word.format(**files) for word in words))
    assert ended.value.code == 2
    assert "tls_" in capsys.readouterr().err


def test_a_client_says_which_file_it_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIND_TLS_CA", str(tmp_path / "missing.pem"))
    with pytest.raises(InvalidArgument, match=r"missing\.pem"):
        Client("127.0.0.1:1", "sgk_x")
    with pytest.raises(InvalidArgument, match="go together"):
        Client("127.0.0.1:1", "sgk_x", tls=Tls(cert="cert.pem"))
