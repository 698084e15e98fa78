"""The units and settings in deploy/ fit the programs that they are for."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path

import pytest

from coordinator.runtime.settings import CoordinatorSettings
from gateway.settings import GatewaySettings
from node_agent.settings import Settings as AgentSettings
from scaimind.service.settings import ServiceSettings

DEPLOY = Path(__file__).parents[3] / "deploy"
PROGRAMS: list[tuple[str, str, type[ServiceSettings]]] = [
    ("coordinator", "mind-coordinator", CoordinatorSettings),
    ("gateway", "mind-gateway", GatewaySettings),
    ("node_agent", "mind-agent", AgentSettings),
]


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / f"{name}.service")
    return parser


@pytest.mark.parametrize(("program", "name", "settings"), PROGRAMS)
def test_a_unit_starts_its_program_with_settings_that_exist(
    program: str, name: str, settings: type[ServiceSettings]
) -> None:
    words = unit(name)["Service"]["ExecStart"].split()
    assert words[1:4] == ["-P", "-m", program]
    flags = [word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")]
    assert set(flags) <= set(settings.model_fields)


@pytest.mark.parametrize(("program", "name", "settings"), PROGRAMS)
def test_a_settings_file_is_taken_whole(
    program: str, name: str, settings: type[ServiceSettings]
) -> None:
    file = DEPLOY / "config" / f"{name.removeprefix('mind-')}.toml"
    values = tomllib.loads(file.read_text())
    assert set(values) <= set(settings.model_fields)
    loaded = settings.load(program, ["--settings", str(file)])
    shown = loaded.model_dump(mode="json")
    assert {key: shown[key] for key in values} == values


@pytest.mark.parametrize(("program", "name", "settings"), PROGRAMS)
def test_a_unit_is_kept_up_without_privileges(
    program: str, name: str, settings: type[ServiceSettings]
) -> None:
    service = unit(name)["Service"]
    assert service["Restart"] == "always"
    assert service["User"] == name
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"


def test_jobs_outlive_a_restart_of_the_agent() -> None:
    service = unit("mind-agent")["Service"]
    assert service["KillMode"] == "process"
    assert "PrivateTmp" not in service
