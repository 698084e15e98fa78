"""The hash by which the coordinator and its agents know the same data or image, without telling which."""

from __future__ import annotations

import hashlib


def plain(uri: str) -> str:
    """A URI without its query and fragment: what is shown and logged."""
    return uri.partition("?")[0].partition("#")[0]


def key_of(uri: str) -> str:
    """The hash of a URI, without its query."""
    return hashlib.sha256(plain(uri).encode()).hexdigest()[:16]


def repository(name: str) -> str:
    """The name of an image without its tag or digest."""
    plain_name = name.partition("@")[0]
    place, slash, last = plain_name.rpartition("/")
    return place + slash + last.partition(":")[0]


def pinned(name: str, digest: str) -> str:
    """The name of what an image's name stood for; `digest` is `sha256:…`."""
    return f"{repository(name)}@{digest}"


def same_repository(name: str, other: str) -> bool:
    """Whether two names of images are of one repository, in their long or short forms."""
    return _short(repository(name)) == _short(repository(other))


def image_key(name: str) -> str:
    """The hash of an image's name, in its long and its short form the same."""
    short = _short(name)
    if "@" not in short and ":" not in short.rpartition("/")[2]:
        short += ":latest"
    return hashlib.sha256(f"image {short}".encode()).hexdigest()[:16]


def repository_key(name: str) -> str:
    """The hash of an image's repository: of its name without tag or digest, long and short the same."""
    return hashlib.sha256(f"repository {_short(repository(name))}".encode()).hexdigest()[:16]


def _short(name: str) -> str:
    return name.removeprefix("docker.io/").removeprefix("library/")
