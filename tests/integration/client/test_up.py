"""`scaimind up` with the real programs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scaimind.cli import exits
from scaimind.cli.main import main
from scaimind.cli.up import claim
from tests.support.cluster import Cluster


def test_a_second_up_in_the_same_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Cluster(tmp_path / "data") as cluster:
        argv = ["up", "--data-dir", str(cluster.data_dir), "--http", "127.0.0.1:0"]
        assert main(argv) == exits.WRONG_STATE
        assert f"another `scaimind up` runs in {cluster.data_dir}" in capsys.readouterr().err
        assert claim.read_note(cluster.data_dir)["ready"] is True
        others = ["up", "--data-dir", str(tmp_path / "other"), "--http", "127.0.0.1:0"]
        assert main([*others, "--grpc", cluster.grpc]) == exits.USAGE
        assert f"--grpc {cluster.grpc}: is in use" in capsys.readouterr().err
        assert cluster.stop() == 0
    assert not claim.is_claimed(tmp_path / "data")


def test_a_program_that_dies_before_it_is_ready_ends_up_with_its_last_words(
    tmp_path: Path,
) -> None:
    (tmp_path / "coordinator.db").write_bytes(b"this is no database" * 1000)
    words = ["--data-dir", str(tmp_path), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    up = subprocess.run(
        [sys.executable, "-m", "scaimind.cli", "up", *words],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert up.returncode == exits.UNAVAILABLE
    assert up.stdout == ""
    assert up.stderr.startswith("error: coordinator died before it was ready (exit code ")
    assert str(tmp_path / "log" / "coordinator.log") in up.stderr


def test_a_program_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with Cluster(tmp_path / "data") as cluster:
        killed = cluster.kill("gateway")
        assert cluster.returned("gateway", killed) != killed
        cluster.up.send_signal(signal.SIGINT)
        assert cluster.up.wait(90) == 0
    assert "gateway died (SIGKILL); starting it again in 0.2 s" in cluster.story()
