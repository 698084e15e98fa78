"""Stores of objects, s3:// and gs://, through fsspec, with the own identity of whoever reads there.

Because that identity sees more than a caller may, only what lies below an allowed root is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from scaimind.service.reach import Closed

SCHEMES = ("s3", "gs")
NOT_BELOW = "it is not below a folder that may be read here"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_TENANT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def roots_for(roots: Sequence[str], tenant_id: str) -> list[str]:
    """The roots as a tenant sees them; one that is shared out by tenant is not for odd names."""
    plain = _TENANT.fullmatch(tenant_id) is not None
    return [
        root.replace("{tenant}", tenant_id) for root in roots if plain or "{tenant}" not in root
    ]


def path_below(url: str, roots: Sequence[str]) -> str:
    """Bucket and key of a URL that lies below one of the roots. Raises Unreachable."""
    scheme, _, path = url.partition("://")
    bucket, _, key = path.partition("/")
    odd = any(part in (".", "..") for part in key.split("/")) or not key.isprintable()
    if not _BUCKET.fullmatch(bucket) or odd:
        raise Closed(NOT_BELOW)
    known = [root.rstrip("/") for root in roots if "://" in root]
    if not any(f"{scheme}://{path}".startswith(f"{root}/") for root in known):
        raise Closed(NOT_BELOW)
    return path.rstrip("/")


def open_store(
    scheme: str, endpoint: str, *, wait_s: float, attempts: int = 1, listings_kept: bool = True
) -> Any:
    """The file system of a scheme, at an endpoint or where it usually is.

    With `listings_kept` a folder that was listed is not asked for again: for who only reads.

    Raises:
        ImportError: the extra of that name is not installed.
    """
    kept = {"skip_instance_cache": True, "use_listings_cache": listings_kept}
    if scheme == "s3":
        from s3fs import S3FileSystem

        waits = {
            "connect_timeout": wait_s,
            "read_timeout": wait_s,
            "retries": {"max_attempts": attempts, "mode": "standard"},
        }
        given = {"endpoint_url": endpoint} if endpoint else {}
        return S3FileSystem(config_kwargs=waits, **kept, **given)
    # What it would try first speaks gRPC to one address, whatever the endpoint.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    from gcsfs import GCSFileSystem

    given = {"endpoint_url": endpoint, "token": "anon"} if endpoint else {}
    return GCSFileSystem(timeout=wait_s, **kept, **given)
