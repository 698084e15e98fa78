"""Settings of `python -m gateway`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from gateway.app import PREFIX
from scaimind.service.settings import check_server, split_address
from scaimind.service.tls_settings import ClientTlsSettings
from scaimind.service.token_settings import TokenSettings, require_tls


class GatewaySettings(TokenSettings, ClientTlsSettings):
    """The gateway: the coordinator over REST and server-sent events."""

    http: str = Field(default="127.0.0.1:8080", description="HOST:PORT to serve HTTP on")
    coordinator: str = Field(
        default="127.0.0.1:50051",
        description="HOST:PORT of the coordinator's gRPC; of several, parted by commas",
    )
    api_secret: str = Field(
        default="", description="the installation's secret; better given by a file", repr=False
    )
    api_secret_file: Path | None = Field(
        default=None, description="file that holds the installation's secret"
    )
    prefix: str = Field(default=PREFIX, description="path below which the API stands")
    timeout_s: float = Field(
        default=15.0, gt=0, le=600, description="deadline of a call of the coordinator"
    )
    max_body_bytes: int = Field(
        default=4 << 20, ge=1024, le=64 << 20, description="largest body of a request"
    )
    max_streams: int = Field(default=10_000, ge=1, description="open SSE streams at most")
    max_user_streams: int = Field(default=10, ge=1, description="open SSE streams of one user")
    exchange_url: str = Field(
        default="", description="token endpoint for tokens of the data services; off when empty"
    )
    exchange_client_id: str = Field(default="", description="who the gateway is there")
    exchange_client_secret: str = Field(
        default="", description="its secret there; better given by a file", repr=False
    )
    exchange_client_secret_file: Path | None = Field(
        default=None, description="file that holds its secret there"
    )
    rate_limits: bool = Field(default=True, description="bound the requests in a minute")
    rate_key: int = Field(default=60, ge=0, description="requests of a key in a minute; 0: any")
    rate_user: int = Field(default=120, ge=0, description="requests of a user in a minute; 0: any")
    rate_tenant: int = Field(
        default=1000, ge=0, description="requests of a tenant in a minute; 0: any"
    )
    rate_store: str = Field(
        default="",
        description="redis:// URL of the counters that several gateways share; empty for this one's own",
        repr=False,
    )
    cache_path: Path | None = Field(
        default=None,
        description="SQLite file of copies, read while the coordinator is away; off when not set",
    )
    heartbeat_s: float = Field(
        default=15.0, gt=0, le=300, description="time between comments on a stream"
    )
    send_timeout_s: float = Field(
        default=30.0, gt=0, le=600, description="after this a reader that takes nothing is let go"
    )
    shutdown_s: float = Field(
        default=5.0, ge=0, le=300, description="time for open requests when going down"
    )
    access_log: bool = Field(default=True, description="log every request")

    @field_validator("exchange_url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        if value:
            require_tls(value)
        return value

    @field_validator("http")
    @classmethod
    def _is_address(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("coordinator")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        return check_server(value)

    def secret(self) -> str:
        """The installation's secret; empty where none is set.

        Raises:
            OSError: its file cannot be read.
        """
        return _secret(self.api_secret, self.api_secret_file)

    def exchange_secret(self) -> str:
        """The gateway's secret at the token endpoint; empty where none is set.

        Raises:
            OSError: its file cannot be read.
        """
        return _secret(self.exchange_client_secret, self.exchange_client_secret_file)


def _secret(text: str, file: Path | None) -> str:
    return text if file is None else file.read_text(encoding="utf-8").strip()
