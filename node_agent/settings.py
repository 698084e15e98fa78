"""Settings of the node agent: flags, `MIND_…` variables, a TOML file."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from pydantic import Field, field_validator

from scaimind.service.settings import check_server
from scaimind.service.tls_settings import ClientTlsSettings

_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _default_node_id() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:128]
    return name if _NODE_ID.fullmatch(name) else "node"


class Settings(ClientTlsSettings):
    """Everything that an agent can be told."""

    coordinator: str = Field(
        default="127.0.0.1:50051",
        description="coordinator, as HOST:PORT; several parted by commas",
    )
    data_dir: Path = Field(
        default=Path(".mind/node"), description="where leases and unsent output are kept; local"
    )
    storage_dir: Path | None = Field(
        default=None,
        description="where checkpoints and models go, best shared by all nodes"
        " (default: storage, in the data directory)",
    )
    node_id: str = Field(
        default_factory=_default_node_id, description="name of this node (default: the host's)"
    )
    devices: str = Field(
        default="auto", description="what to offer: auto, cpu, or simulated as sim:8xH100"
    )
    address: str = Field(
        default="127.0.0.1", description="address at which other nodes reach this one"
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="labels that jobs select by, as key=value"
    )
    join_token: str = Field(default="", description="token with which the node joins", repr=False)
    join_token_file: Path | None = Field(default=None, description="file that holds the join token")
    hold_ms: int = Field(
        default=5000, ge=100, le=60_000, description="longest time a sync call is held"
    )

    @field_validator("coordinator")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return check_server(value)

    @field_validator("node_id")
    @classmethod
    def _is_node_id(cls, value: str) -> str:
        if not _NODE_ID.fullmatch(value):
            raise ValueError("a letter or digit, then up to 127 letters, digits, '.', '_', '-'")
        return value

    @property
    def storage(self) -> Path:
        """The storage folder, absolute."""
        return Path(os.path.abspath(self.storage_dir or self.data_dir / "storage"))

    def token(self) -> str:
        """The join token, "" for none. OSError where its file cannot be read."""
        if self.join_token_file is not None:
            return self.join_token_file.read_text().strip()
        return self.join_token
