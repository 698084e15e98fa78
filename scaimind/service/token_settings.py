"""Settings of the identity provider whose tokens are taken; the gateway and the coordinator have them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from scaimind.service.roles import Claims, role_table
from scaimind.service.settings import ServiceSettings

if TYPE_CHECKING:
    from scaimind.service.tokens import Tokens


def require_tls(url: str) -> None:
    """Lets a URL pass to which secrets may be sent, or from which keys may come.

    Raises:
        ValueError: it is not https, nor http on this machine.
    """
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ValueError("must be an https:// URL")


class TokenSettings(ServiceSettings):
    """Base of the settings of a program that takes tokens."""

    jwt_issuer: str = Field(default="", description="`iss` of tokens; empty takes no tokens")
    jwt_audience: str = Field(default="", description="`aud` of tokens")
    jwt_jwks_url: str = Field(default="", description="where the issuer's keys are, as JWKS")
    jwt_jwks_file: Path | None = Field(default=None, description="file of the issuer's keys")
    jwt_tenant_claim: str = Field(default="tenant_id", description="claim that names the tenant")
    jwt_user_claim: str = Field(default="sub", description="claim that names the user")
    jwt_roles_claim: str = Field(default="roles", description="claim that lists roles")
    jwt_permissions_claim: str = Field(
        default="module_permissions", description="claim that lists permissions"
    )
    jwt_roles: dict[str, list[str]] = Field(
        default={}, description="permissions of roles, beside the usual ones"
    )

    @field_validator("jwt_jwks_url")
    @classmethod
    def _is_safe_url(cls, value: str) -> str:
        if value:
            require_tls(value)
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        both = bool(self.jwt_jwks_url) and self.jwt_jwks_file is not None
        if self._named and (both or not self.jwt_issuer or not self.jwt_audience or not self._keys):
            raise ValueError(
                "tokens need jwt_issuer, jwt_audience, and one of jwt_jwks_url and jwt_jwks_file"
            )
        role_table(self.jwt_roles)
        return self

    @property
    def _keys(self) -> str:
        return self.jwt_jwks_url or str(self.jwt_jwks_file or "")

    @property
    def _named(self) -> bool:
        return bool(self.jwt_issuer or self.jwt_audience or self._keys)

    def tokens(self) -> Tokens | None:
        """Who tells callers by their tokens; None where none are taken."""
        if not self._named:
            return None
        # Only who takes tokens needs cryptography and a client of HTTP.
        from scaimind.service.jwks import KeySet, from_file, from_url
        from scaimind.service.tokens import Tokens

        claims = Claims(
            tenant=self.jwt_tenant_claim,
            user=self.jwt_user_claim,
            roles=self.jwt_roles_claim,
            permissions=self.jwt_permissions_claim,
            table=role_table(self.jwt_roles),
        )
        file = self.jwt_jwks_file
        keys = KeySet(from_file(file) if file is not None else from_url(self.jwt_jwks_url))
        return Tokens(keys, issuer=self.jwt_issuer, audience=self.jwt_audience, claims=claims)
