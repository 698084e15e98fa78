"""Proving a checkpoint: reading all of it, and writing down what it holds.

A checkpoint is one file or one folder. Its manifest lists every file in it with size and SHA-256;
the digest of the manifest stands for all of it. The manifest is written beside the checkpoint, as
`<name>.manifest.json`, because a published checkpoint is never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from node_agent.uploads.manifest import MANIFEST_SUFFIX, MAX_FILES

_CHUNK_BYTES = 1024 * 1024


class Unproven(Exception):
    """The checkpoint cannot be relied on; says why, for the job's log."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a checkpoint holds: bytes of all files, and the `sha256:…` of its manifest."""

    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was when it was listed; `target` is set for a symbolic link."""

    path: str
    size_bytes: int
    modified_ns: int
    inode: int
    target: str | None


def prove(path: Path, *, cancelled: threading.Event) -> Proof:
    """Reads the checkpoint, makes it durable, and writes its manifest.

    Blocks for as long as reading takes; gives up soon after `cancelled` is set.

    Raises:
        Unproven: it vanished or changed meanwhile, is empty, or is not made of files.
    """
    try:
        before = _list(path)
        entries = [_entry(path, file, cancelled=cancelled) for file in before]
        if _list(path) != before:
            raise Unproven("it changed while it was read")
        single = {} if _is_folder(path) else {"single": True}
        manifest = _canonical({"version": 1, "files": entries, **single})
        _write(manifest_path(path), manifest)
    except OSError as error:
        raise Unproven(f"it cannot be read: {error.strerror or error}") from error
    size_bytes = sum(file.size_bytes for file in before)
    return Proof(size_bytes, f"sha256:{hashlib.sha256(manifest).hexdigest()}")


def manifest_path(path: Path) -> Path:
    """Where the manifest of the checkpoint at `path` is."""
    return path.with_name(path.name + MANIFEST_SUFFIX)


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _list(path: Path) -> list[_File]:
    """All files of the checkpoint, by name; links are listed and never followed."""
    if not _is_folder(path):
        return [_file(str(path))]
    files: list[_File] = []
    folders = [str(path)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    files.append(_file(entry.path))
                if len(files) + len(folders) > MAX_FILES:
                    raise Unproven(f"it has more than {MAX_FILES} files")
    if not files:
        raise Unproven("it is empty")
    return sorted(files, key=lambda file: os.fsencode(file.path))


def _file(path: str) -> _File:
    facts = os.lstat(path)
    if stat.S_ISLNK(facts.st_mode):
        return _File(path, 0, facts.st_mtime_ns, facts.st_ino, os.readlink(path))
    if not stat.S_ISREG(facts.st_mode):
        raise Unproven("it holds something that is neither a file nor a folder")
    return _File(path, facts.st_size, facts.st_mtime_ns, facts.st_ino, None)


def _entry(root: Path, file: _File, *, cancelled: threading.Event) -> dict[str, object]:
    name = os.path.relpath(file.path, root) if file.path != str(root) else root.name
    if file.target is not None:
        return {"name": name, "link": file.target}
    return {"name": name, "size": file.size_bytes, "sha256": _digest(file, cancelled)}


def _digest(file: _File, cancelled: threading.Event) -> str:
    digest = hashlib.sha256()
    read_bytes = 0
    # Non-blocking, because what was a file a moment ago may be a pipe by now.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(file.path, flags)
    try:
        while data := os.read(descriptor, _CHUNK_BYTES):
            digest.update(data)
            read_bytes += len(data)
            if cancelled.is_set() or read_bytes > file.size_bytes:
                break
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if cancelled.is_set():
        raise Unproven("its lease was forgotten")
    if read_bytes != file.size_bytes:
        raise Unproven("it changed while it was read")
    return digest.hexdigest()


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
