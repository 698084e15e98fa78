"""What is asked of a check and what it answers; travels as JSON to the process that checks, and back."""

from __future__ import annotations

import msgspec

from scaimind.service.reach import Unreachable as Unreachable

MIB = 1 << 20


class Unparseable(Exception):
    """A source was reached and is not what its format says; the text is for its caller."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What checks may read, and how much.

    roots: absolute folders and prefixes `s3://bucket/…`, `gs://bucket/…`; `{tenant}` in one stands for
    the caller's tenant. closed: folders that stay shut though a root holds them; the deepest of both
    decides. networks: in CIDR, private ones that http(s) may reach all the same. origins: base URL by
    scheme, for `scaidrive` and `scaiatlas`. endpoints: URL by scheme, for `s3` and `gs`.
    """

    roots: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    origins: dict[str, str] = {}
    endpoints: dict[str, str] = {}
    read_bytes: int = 256 * MIB  # of one source
    files: int = 10_000  # of one folder
    parallel: int = 8
    source_s: float = 8.0
    all_s: float = 10.0


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One source as its caller wrote it."""

    path: str
    type: str = ""
    format: str = ""
    columns: tuple[str, ...] = ()


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Sources to check for a tenant. tokens: by scheme, the caller's own for that service."""

    rules: Rules
    tenant_id: str
    sources: tuple[Source, ...]
    tokens: dict[str, str] = {}

    def __repr__(self) -> str:
        return (
            f"Question({self.tenant_id!r}, {len(self.sources)} sources)"  # no token is ever shown
        )


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the check of one source found."""

    reachable: bool = False
    parseable: bool = False
    format: str = ""
    num_samples: int | None = None
    size_bytes: int | None = None
    error: str | None = None


class Found(msgspec.Struct, frozen=True):
    """The finding of the source with this index."""

    index: int
    finding: Finding


TOO_LONG = "took too long to read"
NOT_CHECKED = "it cannot be checked"
