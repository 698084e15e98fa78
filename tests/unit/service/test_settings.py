"""Where a program's settings come from, and how bad ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from scaimind.service.settings import ServiceSettings, split_address


class Settings(ServiceSettings):
    """A program."""

    grpc: str = Field(default="127.0.0.1:50051", description="address")
    limit: int = Field(default=3, ge=1, description="a limit")
    fast: bool = Field(default=True, description="a switch")


def file_with(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_flags_win_over_the_environment_and_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_with(tmp_path / "a.toml", 'grpc = "file:1"\nlimit = 5\nfast = false\n')
    monkeypatch.setenv("MIND_GRPC", "env:1")
    monkeypatch.setenv("MIND_LIMIT", "6")
    loaded = Settings.load("program", ["--settings", file, "--grpc", "flag:1"])
    assert (loaded.grpc, loaded.limit, loaded.fast) == ("flag:1", 6, False)


def test_the_file_is_also_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIND_SETTINGS", file_with(tmp_path / "a.toml", "limit = 9\n"))
    assert Settings.load("program", []).limit == 9


@pytest.mark.parametrize(
    ("argv", "named"),
    [(["--limit", "0"], "--limit"), (["--limit", "x"], "--limit"), (["--fast", "maybe"], "--fast")],
)
def test_a_bad_setting_is_refused_by_name(
    argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        Settings.load("program", argv)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_an_unknown_key_of_the_file_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_with(tmp_path / "a.toml", "limmit = 1\n")
    with pytest.raises(SystemExit) as ended:
        Settings.load("program", ["--settings", file])
    assert ended.value.code == 2
    assert "limmit" in capsys.readouterr().err


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no settings file"):
        Settings.load("program", ["--settings", str(tmp_path / "none.toml")])


def test_variables_of_others_do_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIND_JOB_ID", "job_1")
    monkeypatch.setenv("MIND_CONFIG", "/somewhere/config.json")
    assert Settings.load("program", []).limit == 3


def test_help_lists_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        Settings.load("program", ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--grpc" in shown
    assert "127.0.0.1:50051" in shown


@pytest.mark.parametrize(
    ("text", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("x:0", ("x", 0))],
)
def test_an_address_is_split(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize("text", ["x", "x:", "x:y", "x:65536", "x:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        split_address(text)
