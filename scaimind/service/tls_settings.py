"""Settings of TLS between the programs: the same three files everywhere, optional everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from scaimind.channel import SYSTEM, Tls
from scaimind.service.settings import ServiceSettings


class ClientTlsSettings(ServiceSettings):
    """Base of the settings of a program that calls the coordinator."""

    tls_ca: str = Field(
        default="",
        description="file of the authorities that may vouch for the coordinator, or `system`; "
        "with any of the tls settings, nothing but TLS is spoken",
    )
    tls_cert: Path | None = Field(
        default=None, description="own certificate, where the coordinator asks for one"
    )
    tls_key: Path | None = Field(default=None, description="private key of the own certificate")
    tls_name: str = Field(
        default="", description="name in the coordinator's certificate; default: its address"
    )

    @property
    def tls(self) -> Tls:
        """How to speak with the coordinator."""
        return Tls(
            ca=self.tls_ca,
            cert=str(self.tls_cert or ""),
            key=str(self.tls_key or ""),
            name=self.tls_name,
        )

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        self.tls.check()
        return self


class ServerTlsSettings(ServiceSettings):
    """Base of the settings of a program that others call."""

    tls_cert: Path | None = Field(
        default=None, description="certificate to serve with; nothing but TLS is spoken then"
    )
    tls_key: Path | None = Field(default=None, description="private key of the certificate")
    tls_ca: Path | None = Field(
        default=None,
        description="file of authorities; callers must present a certificate of one of them",
    )

    @model_validator(mode="after")
    def _can_serve(self) -> Self:
        tls = Tls(
            ca=str(self.tls_ca or ""), cert=str(self.tls_cert or ""), key=str(self.tls_key or "")
        )
        tls.check()
        if tls.ca and (not tls.cert or tls.ca == SYSTEM):
            raise ValueError(
                "tls_ca needs tls_cert and tls_key, and a file of one's own authorities"
            )
        return self
