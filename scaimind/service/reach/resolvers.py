"""Where `scaidrive://` and `scaiatlas://` and other schemes lie: by a base URL, or by an entry point.

An entry point of the group `scaimind.resolvers`, named by its scheme, is called as `resolver(uri, token)`
and answers a Location. It gets the caller's own token for that service, "" where none came with the call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from urllib.parse import quote

from scaimind.service.reach import Closed, Unreachable

GROUP = "scaimind.resolvers"
TOKENS = ("scaidrive", "scaiatlas")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")


@dataclass(frozen=True, slots=True)
class Location:
    """An http(s) URL and the headers to read it with. `trusted`: its address may be private."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trusted: bool = False


Resolver = Callable[[str, str], Location]


def resolve(
    uri: str, scheme: str, *, origins: Mapping[str, str], tokens: Mapping[str, str]
) -> Location:
    """Where a URI of a foreign scheme lies; `origins` are base URLs by scheme.

    Raises:
        Unreachable: the scheme is not known here, or its service's token did not come.
    """
    origin = origins.get(scheme)
    if origin is not None:
        return _below(origin, uri, scheme=scheme, token=tokens.get(scheme, ""))
    found = entry_points(group=GROUP, name=scheme) if _SCHEME.fullmatch(scheme) else ()
    for one in found:
        try:
            location = one.load()(uri, tokens.get(scheme, ""))
        except Exception as error:  # it is not ours; its text may carry anything
            raise Unreachable(f"{scheme}:// cannot be resolved here") from error
        if isinstance(location, Location):
            return location
    raise Closed(f"{scheme[:32]}:// is not set up here")


def _below(origin: str, uri: str, *, scheme: str, token: str) -> Location:
    """`scheme://a/b` is read at `origin/a/b` with the caller's own token."""
    if not token:
        raise Unreachable(f"the call came without a token for {scheme}")
    path = uri.partition("://")[2]
    if any(part in ("", ".", "..") for part in path.rstrip("/").split("/")):
        raise Unreachable("there is no such file")
    url = f"{origin.rstrip('/')}/{quote(path, safe='/')}"
    return Location(url, {"Authorization": f"Bearer {token}"}, trusted=True)
