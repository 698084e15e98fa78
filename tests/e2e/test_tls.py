"""The whole cluster by mutual TLS, as the environment asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scaimind.client import Client, Tls, Unavailable
from tests.support.certificates import Authority
from tests.support.cluster import Cluster


def test_every_program_speaks_mutual_tls_where_the_environment_names_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    pair = authority.pair("cluster", "127.0.0.1")
    files = {"CA": authority.ca, "CERT": pair.cert, "KEY": pair.key}
    for name, path in files.items():
        monkeypatch.setenv(f"MIND_TLS_{name}", str(path))
    with Cluster(tmp_path / "data", devices="sim:1xH100") as cluster:
        assert cluster.rest.get("/cluster").status_code == 200
        assert [node.node_id for node in cluster.client.nodes()]
        with (
            Client(cluster.grpc, cluster.key, tls=Tls(), retry_s=0) as plain,
            pytest.raises(Unavailable),
        ):
            plain.cluster()
        for name in files:
            monkeypatch.delenv(f"MIND_TLS_{name}")
        words = ["--tls-ca", str(files["CA"]), "--tls-cert", str(files["CERT"])]
        words += ["--tls-key", str(files["KEY"]), "--api-key", cluster.key]
        told = subprocess.run(
            [sys.executable, "-m", "scaimind.cli", "--server", cluster.grpc, *words, "nodes"],
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert told.returncode == 0, told.stderr
        assert "H100" in told.stdout
