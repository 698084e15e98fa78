"""docs/security.md does what it says: its commands run as they are written, by mutual TLS in the end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scaimind.client import Client, PermissionDenied, Tls, Unavailable
from tests.support.cluster import ROOT, Cluster

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^ *```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
KEY = re.compile(r"sgk_[A-Za-z0-9_-]{43}")


def commands() -> list[str]:
    """The lines that a reader types, block by block."""
    return [
        "\n".join(line.strip()[2:] for line in block.splitlines() if line.strip().startswith("$ "))
        for block in FENCE.findall(PAGE)
    ]


def typed(text: str, folder: Path, **variables: str) -> str:
    """What a shell says to them; `scaimind` is this one."""
    lines = f'scaimind() {{ "{sys.executable}" -m scaimind.cli "$@"; }}\nset -e\n{text}'
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        ["bash", "-c", lines], cwd=folder, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_of_the_page_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal, keys, certificates, variables = commands()
    typed(seal, tmp_path)
    monkeypatch.setenv("MIND_SEAL_KEY_FILE", str(tmp_path / "seal.key"))
    assert (tmp_path / "seal.key").stat().st_mode & 0o777 == 0o600
    typed(certificates, tmp_path)
    told = typed(f"{variables}\nenv", tmp_path)
    for line in told.splitlines():
        name, _, file = line.partition("=")
        if name.startswith("MIND_TLS_"):
            monkeypatch.setenv(name, str(tmp_path / file))
    assert (tmp_path / "mind.pem").stat().st_size
    with Cluster(tmp_path / "data", devices="sim:1xH100") as cluster:
        told = typed(keys, tmp_path, MIND_GRPC=cluster.grpc, MIND_API_KEY=cluster.key)
        ann, boss = KEY.findall(told)
        with Client(cluster.grpc, boss) as client:
            assert {key.tenant_id for key in client.list_keys()} == {"acme"}
            client.create_key("acme", permissions=["view"])
            with pytest.raises(PermissionDenied):
                client.create_key("other", permissions=["view"])
            with pytest.raises(PermissionDenied):
                client.create_key("acme", permissions=["manage"])
        with Client(cluster.grpc, ann) as client, pytest.raises(PermissionDenied):
            client.keys_page()
        with (
            Client(cluster.grpc, ann, tls=Tls(ca=str(tmp_path / "ca.pem")), retry_s=0) as client,
            pytest.raises(Unavailable),
        ):
            client.cluster()
