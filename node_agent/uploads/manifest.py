"""Manifests: what is in a folder that was proven, and what must hold before one is believed.

`{"version": 1, "files": [{"name", "size", "sha256"} | {"name", "link"}]}`, and `"single": true` where it is
of one file and not of a folder. It lies beside what it lists, as `<name>.manifest.json`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

import msgspec

MANIFEST_SUFFIX = ".manifest.json"
MAX_FILES = 100_000
MAX_BYTES = 64 << 20


class Entry(msgspec.Struct, frozen=True):
    """A file, or a symbolic link to `link`; `name` is relative to what the manifest is of."""

    name: str
    size: int = 0
    sha256: str = ""
    link: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """All files, by name."""

    version: int
    files: list[Entry]
    single: bool = False

    @property
    def contents(self) -> list[Entry]:
        """What has contents: all but the links."""
        return [entry for entry in self.files if not entry.link]

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(entry.size for entry in self.files)


def read_manifest(data: bytes) -> Manifest:
    """The manifest; ValueError says why it is none that can be followed."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("its manifest cannot be read") from None
    if manifest.version != 1 or not 0 < len(manifest.files) <= MAX_FILES:
        raise ValueError("its manifest is of an unknown kind")
    if manifest.single and (len(manifest.files) != 1 or "/" in manifest.files[0].name):
        raise ValueError("its manifest is of an unknown kind")
    _check_names(manifest.files)
    return manifest


def _check_names(files: Iterable[Entry]) -> None:
    taken: set[str] = set()  # names, which cannot be folders of others
    folders: set[str] = set()
    for entry in files:
        name = entry.name
        if not _is_below(name) or posixpath.normpath(name) != name or name in taken:
            raise ValueError("its manifest names a file that cannot be")
        if entry.link and not _is_below(posixpath.join(posixpath.dirname(name), entry.link)):
            raise ValueError("a link in it leads out of it")
        taken.add(name)
        while name := posixpath.dirname(name):
            folders.add(name)
    if taken & folders:
        raise ValueError("its manifest names a file that cannot be")


def _is_below(name: str) -> bool:
    whole = posixpath.normpath(name)
    odd = not name or "\0" in name or name.startswith("/") or "//" in name
    return not odd and whole not in (".", "..") and not whole.startswith("../")
