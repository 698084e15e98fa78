"""Permissions by their public names, roles, and what the claims of a token say about its bearer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scaimind.v1 import options_pb2


def permission_name(number: int) -> str:
    """The name by which a permission travels, such as `scaimind:view`."""
    try:
        name = options_pb2.Permission.Name(number)  # type: ignore[arg-type]
    except ValueError:
        name = str(number)
    return f"scaimind:{name.lower()}"


PERMISSIONS = frozenset(
    permission_name(number) for number in options_pb2.Permission.values() if number
)
MAX_ID = 256
MAX_GRANTS = 1000

# GPU time is money: an ordinary user has none of it until somebody says so.
ROLES: Mapping[str, frozenset[str]] = {
    "super_admin": PERMISSIONS,
    "partner_admin": PERMISSIONS,
    "tenant_admin": PERMISSIONS,
    "tenant_user": frozenset(),
    "tenant_viewer": frozenset({permission_name(options_pb2.VIEW)}),
}


class BadToken(Exception):
    """A token that is not good; the text is for the log at DEBUG alone."""


class KeysOutOfReach(Exception):
    """The identity provider's keys are not known, and cannot be had."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a good token was given to.

    Raises:
        ValueError: it cannot travel as gRPC metadata, or has no tenant.
    """

    tenant_id: str
    user_id: str
    permissions: frozenset[str]
    """Names such as `scaimind:view`."""
    ends_at: float
    """When the token ends, in seconds since 1970 UTC."""
    exchanged: bool
    """Whether the token was itself got by exchange; such a one is not exchanged again."""

    def __post_init__(self) -> None:
        for text in (self.tenant_id, self.user_id):
            if not (text.isascii() and text.isprintable()):
                raise ValueError("an identity must be printable ASCII")
        if not self.tenant_id.strip():
            raise ValueError("an identity must have a tenant")


@dataclass(frozen=True, slots=True)
class Claims:
    """Which claims are read, and what each role may do."""

    tenant: str = "tenant_id"
    user: str = "sub"
    roles: str = "roles"
    permissions: str = "module_permissions"
    table: Mapping[str, frozenset[str]] = field(default_factory=lambda: ROLES)

    def bearer(self, claims: Mapping[str, Any], *, ends_at: float) -> Bearer:
        """The caller that verified claims describe.

        Raises:
            ValueError: they name no tenant or no user, or are of another shape.
        """
        granted = set(_words(claims, self.permissions)) & PERMISSIONS
        for role in _words(claims, self.roles):
            granted |= self.table.get(role, frozenset())
        return Bearer(
            _name(claims, self.tenant),
            _name(claims, self.user),
            frozenset(granted),
            ends_at=ends_at,
            exchanged="act" in claims,
        )


def role_table(own: Mapping[str, Iterable[str]]) -> Mapping[str, frozenset[str]]:
    """The usual roles, and others or other meanings of them.

    Raises:
        ValueError: a permission is none.
    """
    table = dict(ROLES)
    for role, names in own.items():
        granted = frozenset(names)
        if granted - PERMISSIONS:
            unknown = ", ".join(sorted(granted - PERMISSIONS))
            raise ValueError(f"{unknown}: not among {', '.join(sorted(PERMISSIONS))}")
        table[role] = granted
    return table


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise ValueError("a claim that names the caller is missing")
    return value


def _words(claims: Mapping[str, Any], claim: str) -> list[str]:
    """A list of texts, or one text of words, as scopes are written."""
    value = claims.get(claim, [])
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("a claim that tells permissions is of another shape")
    if len(words) > MAX_GRANTS:
        raise ValueError("too many permissions or roles")
    return words
