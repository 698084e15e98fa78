"""Where clients find the coordinator and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from scaimind.client.connection import (
    credentials,
    default_data_dir,
    find_api_key,
    find_server,
    is_local,
    read_key_file,
)


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MIND_GRPC", "MIND_API_KEY", "MIND_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_the_server_is_the_argument_then_the_environment_then_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert find_server() == "127.0.0.1:50051"
    monkeypatch.setenv("MIND_GRPC", "far:1")
    assert find_server() == "far:1"
    assert find_server("near:2") == "near:2"


def test_the_data_directory_is_here_where_there_is_one_else_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_data_dir() == tmp_path / "home" / ".mind"
    (tmp_path / ".mind").mkdir()
    assert default_data_dir() == tmp_path / ".mind"
    monkeypatch.setenv("MIND_DATA_DIR", "other")
    assert default_data_dir() == tmp_path / "other"


def test_the_key_is_the_argument_then_the_environment_then_the_admins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_api_key(None, "127.0.0.1:1") is None
    (tmp_path / ".mind").mkdir()
    (tmp_path / ".mind" / "admin.key").write_text("sgk_file\n")
    assert find_api_key(None, "127.0.0.1:1") == "sgk_file"
    monkeypatch.setenv("MIND_API_KEY", "sgk_env")
    assert find_api_key(None, "127.0.0.1:1") == "sgk_env"
    assert find_api_key("sgk_argument", "127.0.0.1:1") == "sgk_argument"


def test_the_admins_key_is_not_sent_to_another_machine(tmp_path: Path) -> None:
    (tmp_path / ".mind").mkdir()
    (tmp_path / ".mind" / "admin.key").write_text("sgk_file")
    assert find_api_key(None, "cluster.example:50051") is None


@pytest.mark.parametrize(
    ("server", "local"),
    [
        ("127.0.0.1:50051", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/run/mind.sock", True),
        ("10.0.0.1:1", False),
        ("cluster.example:1", False),
    ],
)
def test_this_machine_is_told_from_others(server: str, local: bool) -> None:
    assert is_local(server) is local


def test_a_file_that_holds_no_key_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert read_key_file(tmp_path / "empty") is None
    assert read_key_file(tmp_path / "binary") is None
    assert read_key_file(tmp_path) is None


def test_calls_without_a_key_carry_no_credential() -> None:
    assert credentials(None) == ()
    assert credentials("sgk_1") == (("authorization", "Bearer sgk_1"),)
