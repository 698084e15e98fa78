"""Settings of what the agent fetches for jobs, from where, and how much of it is kept."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from pydantic import Field, field_validator

from node_agent.cache.terms import Rules
from scaimind.service.tls_settings import ClientTlsSettings


class DataSettings(ClientTlsSettings):
    """Base of the agent's settings."""

    cache_dir: Path | None = Field(
        default=None,
        description="where fetched data is kept; a local disk (default: cache, in the data directory)",
    )
    cache_gb: float | None = Field(
        default=None, gt=0, le=10_000_000, description="size of that (default: a tenth of the disk)"
    )
    data_roots: str = Field(
        default="",
        description="s3://, gs:// prefixes that jobs may read with this node's identity, parted by commas;"
        " {tenant} in one stands for the job's tenant; default: none",
    )
    data_networks: str = Field(
        default="",
        description="private networks (10.1.0.0/16,…) that http(s) data may lie in; default: none",
    )
    data_hosts: str = Field(
        default="",
        description="hosts that http(s) data may come from, as data.example.org or .example.org,"
        " parted by commas; default: any",
    )
    data_scaidrive_url: str = Field(default="", description="base URL that scaidrive:// is read at")
    data_scaiatlas_url: str = Field(default="", description="base URL that scaiatlas:// is read at")
    data_s3_url: str = Field(default="", description="endpoint of s3://; default: AWS")
    data_gs_url: str = Field(default="", description="endpoint of gs://; default: Google Cloud")

    @field_validator("data_roots")
    @classmethod
    def _are_roots(cls, value: str) -> str:
        for root in _words(value):
            if not root.startswith(
                ("/", "s3://", "gs://")
            ):  # folders are the coordinator's to know
                raise ValueError(f"{root} is neither s3://… nor gs://…")
        return value

    @field_validator("data_networks")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for network in _words(value):
            ip_network(network)
        return value

    @field_validator("data_scaidrive_url", "data_scaiatlas_url", "data_s3_url", "data_gs_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value} is not an http(s) URL")
        return value

    @property
    def fetch_rules(self) -> Rules:
        """What may be fetched here."""
        urls = {"scaidrive": self.data_scaidrive_url, "scaiatlas": self.data_scaiatlas_url}
        endpoints = {"s3": self.data_s3_url, "gs": self.data_gs_url}
        return Rules(
            roots=_words(self.data_roots),
            networks=_words(self.data_networks),
            hosts=_words(self.data_hosts),
            origins={scheme: url for scheme, url in urls.items() if url},
            endpoints={scheme: url for scheme, url in endpoints.items() if url},
        )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
