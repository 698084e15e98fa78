"""Settings of a program: flags, then environment (`MIND_…`), then a TOML file, then defaults."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from scaimind import leader

FLAG = "--settings"


class ServiceSettings(BaseSettings):
    """Base of a program's settings; each field is a flag, a variable and a key of the file."""

    model_config = SettingsConfigDict(
        env_prefix="MIND_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        extra="forbid",
        frozen=True,
    )

    settings: Path | None = Field(default=None, description="TOML file with any of these settings")
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_json: bool = Field(default=False, description="write the program's own log as JSON lines")

    _argv: ClassVar[Sequence[str]] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources; the file's own path is taken from the flags or the environment."""
        path = _option(cls._argv, FLAG) or env_settings().get("settings")
        if path and not Path(path).is_file():
            raise SystemExit(f"there is no settings file {path}")
        file = (TomlConfigSettingsSource(settings_cls, toml_file=path),) if path else ()
        return (init_settings, env_settings, *file)

    @classmethod
    def load(cls, program: str, argv: Sequence[str] | None = None) -> Self:
        """Reads the settings of `program` (as in `python -m program`).

        Raises:
            SystemExit: 0 after `--help`; 2 with one line per fault where a setting is bad.
        """
        cls._argv = tuple(sys.argv[1:] if argv is None else argv)
        try:
            source: CliSettingsSource[Any] = CliSettingsSource(
                cls, cli_prog_name=f"python -m {program}", cli_parse_args=list(cls._argv)
            )
            return cls(_cli_settings_source=source)  # type: ignore[call-arg]
        except ValidationError as error:
            lines = [
                _fault(program, ".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()
            ]
            print("\n".join(lines), file=sys.stderr)
            raise SystemExit(2) from None


def split_address(address: str) -> tuple[str, int]:
    """Splits `HOST:PORT`; brackets around an IPv6 host are dropped.

    Raises:
        ValueError: no port, or not a number of 0 to 65535.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def check_server(server: str) -> str:
    """Looks at HOST:PORT of a coordinator, or at several parted by commas; answers it as it is.

    Raises:
        ValueError: an address is none.
    """
    for one in leader.split(server):
        split_address(one.removeprefix(leader.NAME_OF_ALL))
    if not leader.split(server):
        raise ValueError("no address is given")
    return server


def _option(argv: Sequence[str], name: str) -> str | None:
    for index, word in enumerate(argv):
        if word == name and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _fault(program: str, field: str, message: str) -> str:
    flag = f"--{field.replace('_', '-')}: " if field else ""  # a fault of several has no one flag
    text = message.removeprefix("Value error, ")
    return f"{program}: {flag}{text} (python -m {program} --help)"
