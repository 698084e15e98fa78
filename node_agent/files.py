"""Files that the agent keeps: names made of ids, replacing a file whole, removing folders."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from urllib.parse import quote

_MAX_NAME_BYTES = 200


def file_name(identifier: str) -> str:
    """A file name for an id: the id itself where it can be one, never `.`, `..` or hidden."""
    name = quote(identifier, safe="")
    name = f"%2E{name[1:]}" if name.startswith(".") else name or "%"
    if len(name) <= _MAX_NAME_BYTES:
        return name
    return f"{name[:100]}%{hashlib.sha256(identifier.encode()).hexdigest()}"


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file so that it is seen whole or not at all; not yet safe from a power cut."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.rename(path)


def sync(path: Path) -> None:
    """Flushes a file to the disk; the file systems of Linux flush a new file's name with it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path, trash: Path) -> None:
    """Removes a folder: gone at once under its name, then in fact.

    What cannot be removed now is left in `trash`, to be tried again by `empty`.
    """
    trash.mkdir(exist_ok=True)
    gone = trash / f"{os.urandom(8).hex()}"
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def empty(trash: Path) -> None:
    """Removes what earlier removals left behind."""
    shutil.rmtree(trash, ignore_errors=True)


def has_entries(folder: Path) -> bool:
    """Whether a folder can be read and holds anything."""
    try:
        with os.scandir(folder) as entries:
            return any(entries)
    except OSError:
        return False
