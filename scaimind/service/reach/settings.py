"""Settings of what a program may read for others: the coordinator checks data, agents fetch it."""

from __future__ import annotations

from ipaddress import ip_network

from pydantic import Field, field_validator

from scaimind.service.settings import ServiceSettings


class ReachSettings(ServiceSettings):
    """Base of the settings of a program that reads what jobs name elsewhere."""

    data_networks: str = Field(
        default="",
        description="private networks (10.1.0.0/16,…) that http(s) data may lie in; default: none",
    )
    data_scaidrive_url: str = Field(default="", description="base URL that scaidrive:// is read at")
    data_scaiatlas_url: str = Field(default="", description="base URL that scaiatlas:// is read at")
    data_s3_url: str = Field(default="", description="endpoint of s3://; default: AWS")
    data_gs_url: str = Field(default="", description="endpoint of gs://; default: Google Cloud")

    @property
    def data_origins(self) -> dict[str, str]:
        """Base URL by scheme, of services that were named."""
        urls = {"scaidrive": self.data_scaidrive_url, "scaiatlas": self.data_scaiatlas_url}
        return {scheme: url for scheme, url in urls.items() if url}

    @property
    def data_endpoints(self) -> dict[str, str]:
        """URL by scheme, of stores that are not where they are by default."""
        urls = {"s3": self.data_s3_url, "gs": self.data_gs_url}
        return {scheme: url for scheme, url in urls.items() if url}

    @field_validator("data_roots", check_fields=False)
    @classmethod
    def _are_roots(cls, value: str) -> str:
        for root in words_of(value):
            if not root.startswith(("/", "s3://", "gs://")):
                raise ValueError(f"{root} is neither an absolute folder nor s3://… nor gs://…")
        return value

    @field_validator("data_networks")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        for network in words_of(value):
            ip_network(network)
        return value

    @field_validator("data_scaidrive_url", "data_scaiatlas_url", "data_s3_url", "data_gs_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value} is not an http(s) URL")
        return value


def words_of(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
