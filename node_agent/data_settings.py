"""Settings of what the agent fetches for jobs, from where, and how much of it is kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from node_agent.cache.terms import Rules
from scaimind.service.reach.settings import ReachSettings, words_of
from scaimind.service.tls_settings import ClientTlsSettings


class DataSettings(ReachSettings, ClientTlsSettings):
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
    data_hosts: str = Field(
        default="",
        description="hosts that http(s) data may come from, as data.example.org or .example.org,"
        " parted by commas; default: any",
    )

    @property
    def fetch_rules(self) -> Rules:
        """What may be fetched here."""
        return Rules(
            roots=words_of(self.data_roots),
            networks=words_of(self.data_networks),
            hosts=words_of(self.data_hosts),
            origins=self.data_origins,
            endpoints=self.data_endpoints,
        )
