"""The hash by which the coordinator and its agents know the same data or image, without telling which."""

from __future__ import annotations

import hashlib


def plain(uri: str) -> str:
    """A URI without its query and fragment: what is shown and logged."""
    return uri.partition("?")[0].partition("#")[0]


def key_of(uri: str) -> str:
    """The hash of a URI, without its query."""
    return hashlib.sha256(plain(uri).encode()).hexdigest()[:16]


def image_key(name: str) -> str:
    """The hash of an image's name, in its long and its short form the same."""
    short = name.removeprefix("docker.io/").removeprefix("library/")
    if "@" not in short and ":" not in short.rpartition("/")[2]:
        short += ":latest"
    return hashlib.sha256(f"image {short}".encode()).hexdigest()[:16]
