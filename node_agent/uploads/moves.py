"""The transfers themselves: file by file, some at a time, digests checked on the way.

Theory of operation. What is uploaded was proven: its manifest lists every file with its digest, and is
written last, so that what has a manifest is whole. A transfer that is killed is begun again by somebody;
what has arrived was written down (upload), or is there with the right digest (download).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from node_agent.uploads.manifest import (
    MANIFEST_SUFFIX,
    MAX_BYTES,
    MAX_FILES,
    Entry,
    Manifest,
    read_manifest,
)
from node_agent.uploads.orders import Download, Failed, Remove, Upload
from node_agent.uploads.store import asked

AT_ONCE = 4
CHUNK_BYTES = 8 << 20
_PARTIAL = ".partial"

Beat = Callable[[], None]


def upload(order: Upload, store: Any, path: str, *, beat: Beat) -> None:
    """Uploads to `path` of a store; `beat` is called whenever something has moved. Raises Failed."""
    try:
        data = Path(order.manifest).read_bytes()
        manifest = read_manifest(data)
    except (OSError, ValueError) as error:
        raise Failed(_told(error), lasting=True) from None
    listing = path + MANIFEST_SUFFIX
    if asked(store.exists, listing) and asked(store.cat_file, listing) != data:
        asked(store.rm, listing)  # it is of what is being replaced
    journal = _Journal(Path(order.journal))

    def send(entry: Entry) -> None:
        if (entry.name, entry.sha256) in journal:
            return
        source = Path(order.source) if manifest.single else Path(order.source) / entry.name
        # Wrapped once more: what was begun is also ended, and that may fail on its own.
        asked(_send, entry, source, store, path=_at(path, manifest, entry), beat=beat)
        journal.add(entry)

    _all(send, manifest.contents)
    if missing := _missing(store, path, manifest):
        journal.drop()
        raise Failed(f"{len(missing)} of its files did not arrive whole")
    asked(store.pipe_file, listing, data)


def download(order: Download, store: Any, path: str, *, beat: Beat) -> None:
    """Downloads `path` of a store, verifying every digest; see `upload`. Raises Failed."""
    target = Path(order.target)
    if target.exists():
        return  # it was renamed when it was whole, and the answer was lost
    manifest = _listed(store, path, digest=order.digest)
    partial = target.with_name(target.name + _PARTIAL)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(partial.parent).free < manifest.size_bytes:
            raise Failed("the node's disk has no room for it", lasting=True)

        def fetch(entry: Entry) -> None:
            place = partial if manifest.single else partial / entry.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if not (entry.sha256 and _digest(place) == entry.sha256):
                _fetch(entry, place, store, path=_at(path, manifest, entry), beat=beat)

        _all(fetch, manifest.contents)
        for entry in manifest.files:
            if entry.link and not os.path.lexists(partial / entry.name):
                (partial / entry.name).parent.mkdir(parents=True, exist_ok=True)
                os.symlink(entry.link, partial / entry.name)
        partial.rename(target)
    except OSError as error:
        raise Failed(f"the node's disk: {error.strerror}") from None


def remove(order: Remove, store: Any, path: str, *, beat: Beat) -> None:
    """Removes what was uploaded to `path`, its manifest first; fine where it is gone. Raises Failed."""
    for one in (path + MANIFEST_SUFFIX, path):
        if asked(store.exists, one):
            asked(store.rm, one, recursive=True)
        beat()


def _at(path: str, manifest: Manifest, entry: Entry) -> str:
    return path if manifest.single else f"{path}/{entry.name}"


def _send(entry: Entry, source: Path, store: Any, *, path: str, beat: Beat) -> None:
    """Uploads a file that is still what the manifest says. Raises Failed."""
    digest, sent_bytes = hashlib.sha256(), 0
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        raise Failed("it is not there any more", lasting=True) from None
    with (
        open(descriptor, "rb", buffering=0) as file,
        asked(store.open, path, "wb", block_size=CHUNK_BYTES) as remote,
    ):
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
            sent_bytes += len(data)
            if sent_bytes > entry.size:
                break
            asked(remote.write, data)
            beat()
        asked(remote.close)
    if (sent_bytes, digest.hexdigest()) != (entry.size, entry.sha256):
        raise Failed("it has changed since it was proven", lasting=True)


def _fetch(entry: Entry, place: Path, store: Any, *, path: str, beat: Beat) -> None:
    digest = hashlib.sha256()
    with asked(store.open, path, "rb", block_size=CHUNK_BYTES) as remote, place.open("wb") as file:
        while data := asked(remote.read, CHUNK_BYTES):
            digest.update(data)
            file.write(data)
            beat()
    if entry.sha256 and digest.hexdigest() != entry.sha256:
        raise Failed("a file of it is not what was uploaded", lasting=True)


def _listed(store: Any, path: str, *, digest: str) -> Manifest:
    """The manifest of what is to be downloaded; a list of its files where none is asked for."""
    listing = path + MANIFEST_SUFFIX
    if not asked(store.exists, listing):
        if digest:
            raise Failed("it is not there, or not whole", lasting=True)
        return _found(store, path)
    if (asked(store.info, listing).get("size") or 0) > MAX_BYTES:
        raise Failed("its manifest is too large", lasting=True)
    data = asked(store.cat_file, listing)
    if digest and digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
        raise Failed("its manifest is not the one that was proven", lasting=True)
    try:
        return read_manifest(data)
    except ValueError as error:
        raise Failed(str(error), lasting=True) from None


def _found(store: Any, path: str) -> Manifest:
    """What is there of something that was not uploaded by an agent."""
    sizes = _sizes(store, path)
    if not 0 < len(sizes) <= MAX_FILES:
        raise Failed("there is no such bucket or object", lasting=True)
    single = list(sizes) == [path]
    names = [path.rpartition("/")[2]] if single else [one[len(path) + 1 :] for one in sizes]
    sized = zip(names, sizes.values(), strict=True)
    files = [{"name": name, "size": size} for name, size in sized if not name.endswith("/")]
    data = json.dumps({"version": 1, "files": files, "single": single}).encode()
    try:
        return read_manifest(data)
    except ValueError as error:
        raise Failed(str(error), lasting=True) from None


def _missing(store: Any, path: str, manifest: Manifest) -> list[str]:
    there = _sizes(store, path)
    return [e.name for e in manifest.contents if there.get(_at(path, manifest, e)) != e.size]


def _sizes(store: Any, path: str) -> dict[str, int]:
    """All that is below a path, or the file that it is, with sizes."""
    found = asked(store.find, path, detail=True)
    return {str(name): int(info.get("size") or 0) for name, info in found.items()}


def _all(work: Callable[[Entry], None], entries: Iterable[Entry]) -> None:
    """Does the work on each, some at a time; the first fault ends it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for _ in pool.map(work, entries):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _digest(place: Path) -> str:
    """Of a file that may be there from before; "" for none."""
    try:
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return "its manifest is not there any more"
    return str(error)


class _Journal:
    """Which files of an upload have arrived: a line for each in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: set[tuple[str, str]] = set()
        with suppress(OSError, UnicodeDecodeError):
            for line in path.read_text().splitlines():
                sha256, _, name = line.partition(" ")
                with suppress(ValueError):  # the last one may be torn
                    self._known.add((str(json.loads(name)), sha256))

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._known

    def add(self, entry: Entry) -> None:
        """Writes down that a file has arrived."""
        line = f"{entry.sha256} {json.dumps(entry.name)}\n"
        with self._lock, suppress(OSError):  # not written down: it is sent again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(line)

    def drop(self) -> None:
        """Forgets all of it."""
        with suppress(OSError):
            self._path.unlink()
