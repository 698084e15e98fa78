"""The gateway that settings ask for, and settings that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app import Gateway
from gateway.program import assemble
from gateway.settings import GatewaySettings

TOKENS = ("--jwt-issuer", "https://id.example", "--jwt-audience", "mind")
KEYS = ("--jwt-jwks-url", "https://id.example/jwks")


def made(*flags: str) -> Gateway:
    return assemble(GatewaySettings.load("gateway", flags))


def test_defaults_make_a_gateway() -> None:
    assert made().open_streams == 0


def test_tokens_and_roles_can_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[jwt_roles]\nengineer = ["scaimind:view", "scaimind:manage"]\n')
    made(*TOKENS, *KEYS)
    made(*TOKENS, "--jwt-jwks-file", "keys.json", "--settings", str(file))
    file.write_text('[jwt_roles]\nengineer = ["scaimind:all"]\n')
    with pytest.raises(SystemExit):
        made(*TOKENS, *KEYS, "--settings", str(file))
    assert "gateway: scaimind:all: not among" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        TOKENS,
        KEYS,
        TOKENS[:2],
        (*TOKENS[:2], *KEYS),
        (*TOKENS[2:], *KEYS),
        (*TOKENS, *KEYS, "--jwt-jwks-file", "keys.json"),
    ],
)
def test_half_a_provider_is_refused(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        made(*flags)
    assert ended.value.code == 2
    assert "jwt_issuer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["http://id.example/jwks", "ftp://127.0.0.1/x", "keys.json", "https://"]
)
def test_keys_come_over_tls_or_from_this_machine(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        made(*TOKENS, "--jwt-jwks-url", url)
    assert ended.value.code == 2
    assert "jwt-jwks-url" in capsys.readouterr().err
    made(*TOKENS, "--jwt-jwks-url", "http://127.0.0.1:1/jwks")


def test_a_store_of_rates_that_is_none_is_refused() -> None:
    made("--rate-store", "redis://127.0.0.1:1/0")
    made("--no-rate-limits", "--rate-store", "")
    with pytest.raises(ValueError, match="scheme"):
        made("--rate-store", "127.0.0.1:1")


def test_half_an_exchange_is_refused(tmp_path: Path) -> None:
    url = ("--exchange-url", "https://id.example/token")
    for flags in ((), ("--exchange-client-id", "c"), ("--exchange-client-secret", "s")):
        with pytest.raises(ValueError, match="exchange_client_id"):
            made(*url, *flags)
    (tmp_path / "secret").write_text("s\n")
    file = str(tmp_path / "secret")
    made(*url, "--exchange-client-id", "c", "--exchange-client-secret-file", file)


def test_secrets_are_not_shown() -> None:
    flags = (
        "--api-secret",
        "s1",
        "--exchange-client-secret",
        "s2",
        "--rate-store",
        "redis://:s3@h",
    )
    shown = repr(GatewaySettings.load("gateway", flags))
    assert not any(secret in shown for secret in ("s1", "s2", "s3"))
