"""What the agent and the process that fetches tell each other: one JSON object on a line.

The agent writes an Order, then either a Go or nothing more; the process answers Looked, Begun where
anything comes from elsewhere, Grown as often as it likes, and in the end Fetched or Failed.
"""

from __future__ import annotations

import msgspec

MIB = 1 << 20
GIB = 1 << 30


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What may be fetched on this node; its admin says so.

    roots: prefixes `s3://bucket/…`, `gs://bucket/…`, where `{tenant}` stands for the job's tenant.
    networks: in CIDR, private ones that http(s) may reach all the same. hosts: names that http(s) may
    ask, and below which (`.example.org`); none: any. origins: base URL by scheme, for `scaidrive` and
    `scaiatlas`. endpoints: URL by scheme, for `s3` and `gs`.
    """

    roots: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: dict[str, str] = {}
    endpoints: dict[str, str] = {}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A source to look at, and perhaps to fetch.

    partials: the folder of partial fetches. tokens: by scheme, the job's own for that service. bundle: it
    is an archive that is to be unpacked. reader: user and group with whose rights a local bundle is
    read; none: the agent's.
    """

    uri: str
    tenant_id: str
    partials: str
    rules: Rules = Rules()
    tokens: dict[str, str] = {}
    bundle: bool = False
    reader: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return (
            f"Order({self.tenant_id!r}, bundle={self.bundle})"  # neither token nor query is shown
        )


class Go(msgspec.Struct, frozen=True):
    """Fetch it; at most so many bytes."""

    most_bytes: int


class Looked(msgspec.Struct, frozen=True, tag=True):
    """What is there now. total_bytes: 0 for not known."""

    key: str
    total_bytes: int


class Begun(msgspec.Struct, frozen=True, tag=True):
    """Its bytes begin to come; what an earlier process has left was read before."""


class Grown(msgspec.Struct, frozen=True, tag=True):
    """So much of it is here. come_bytes: how much of that this process has brought."""

    done_bytes: int
    come_bytes: int = 0


class Fetched(msgspec.Struct, frozen=True, tag=True):
    """It lies whole and flushed in `partial/<key>/whole`, which may be renamed into the objects.

    come_bytes: as in Grown; of a bundle, before it was unpacked.
    """

    object_id: str
    size_bytes: int
    come_bytes: int = 0


class Failed(msgspec.Struct, frozen=True, tag=True):
    """It cannot be had; the text is for the job's user. is_final: nor will it be, as it is named."""

    text: str
    is_final: bool = False


Told = Looked | Begun | Grown | Fetched | Failed


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """`meta.json` of an object. digest: `sha256:…` of its one file, or of its manifest. name: that of
    its one file; empty: it is a folder."""

    digest: str
    size_bytes: int
    files: list[
        tuple[str, int, int]
    ]  # name, bytes, mtime in ns: who was changed since is found out
    name: str = ""
