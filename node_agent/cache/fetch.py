"""Fetches what was looked at into `partial/<key>`, goes on where an earlier process ended, and proves it.

What is resumed was written in the same boot of the machine: before a power cut a file may have grown
without its content. Of every byte the SHA-256 is taken, also of those that were there already.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import msgspec

from node_agent.cache.folders import META, TREE, WHOLE, empty_tree, remove_tree, sync
from node_agent.cache.names import parts_of
from node_agent.cache.sources import RemoteFile, Source
from node_agent.cache.terms import MIB, Fetched, Grown, Meta
from node_agent.cache.unpack import unpack
from scaimind.service.reach import Unreachable

ARCHIVE = "archive"  # a bundle that is being fetched
DONE = "done"  # a line for each file that is there whole
BOOT = "boot"
PIECE_BYTES = 1 * MIB
THREADS = 4
TRIES = 6  # without a byte between them
PAUSE_S = 0.25
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class TooMuch(Exception):
    """There is more of it than there is room for."""


class _Done(NamedTuple):
    """One file that is there whole."""

    name: str
    size_bytes: int
    sha256: str


def key_of(uri: str, source: Source, *, bundle: bool) -> str:
    """What names this content of this source; another one each time where no mark tells of changes."""
    facts = [list(one) for one in source.files]
    if not all(one.mark for one in source.files):
        facts.append([os.urandom(16).hex()])
    plain = msgspec.json.encode([uri, bundle, source.is_folder, facts])
    return hashlib.sha256(plain).hexdigest()


class Fetch:
    """One fetch into one folder, of which no other process knows."""

    def __init__(
        self,
        source: Source,
        folder: Path,
        *,
        most_bytes: int,
        grown: Callable[[Grown], None],
        begun: Callable[[], object] | None = None,
    ) -> None:
        """Writes nothing yet; `grown` is told how far it is, by any thread.

        `begun` is called once, before the first byte is taken from the source.
        """
        self._source = source
        self._folder = folder
        self._into = folder / TREE
        self._most_bytes = most_bytes
        self._sizes: dict[str, int] = {}  # of files, as far as they are here
        self._done_bytes = self._come_bytes = 0
        self._grown = grown
        self._begun = begun
        self._counting = threading.Lock()
        self._lock = -1  # open for as long as the process is

    def run(self, *, bundle: bool = False, sha256: str = "") -> Fetched:
        """Fetches and proves all of it; `sha256` is that of its one file where its user knows it.

        Raises:
            Unreachable: it cannot be had.
            TooMuch, BadBundle: it may not be had.
            OSError: the disk refuses.
        """
        if bundle:
            self._into = self._folder / ARCHIVE
        self._open()
        known = self._known()
        self._rest(known)
        self._source.check()
        files = sorted(known.values())
        if sha256 and [one.sha256 for one in files] != [sha256]:
            remove_tree(self._folder)
            raise Unreachable("its SHA-256 is not the one that the job names")
        if bundle:
            files = self._unpacked()
        return self._whole(files, is_folder=self._source.is_folder or bundle)

    def _rest(self, known: dict[str, _Done]) -> None:
        """Fetches the files that are not there yet, several at once."""
        missing = [one for one in self._source.files if one.name not in known]
        pool = ThreadPoolExecutor(THREADS)
        try:
            with (self._folder / DONE).open("ab") as done:
                for found in pool.map(self._file, missing):
                    known[found.name] = found
                    done.write(msgspec.json.encode(found) + b"\n")
                    done.flush()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _open(self) -> None:
        """Keeps what an earlier process left, where it can be trusted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # The process of an agent that was killed may not be gone yet.
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        boot = _BOOT_ID.read_text() if _BOOT_ID.exists() else ""
        mark = self._folder / BOOT
        if not (mark.exists() and boot and mark.read_text() == boot):
            empty_tree(self._folder)
        self._into.mkdir(exist_ok=True)
        mark.write_text(boot)

    def _known(self) -> dict[str, _Done]:
        path = self._folder / DONE
        found = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                one = msgspec.json.decode(line, type=_Done)
            except msgspec.DecodeError:
                break  # cut off by the end of its writer
            path = self._path(one.name)
            if path.exists() and path.stat().st_size == one.size_bytes:
                found[one.name] = one
                self._count(one.name, one.size_bytes)
        return found

    def _path(self, name: str) -> Path:
        return self._into.joinpath(*parts_of(name))

    def _file(self, file: RemoteFile) -> _Done:
        """Fetches one file, however often the connection breaks."""
        path = self._path(file.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        failures = 0
        while True:
            before = path.stat().st_size if path.exists() else 0
            try:
                found = self._pieces(file, path)
            except (ConnectionError, TimeoutError, HTTPException) as error:
                after = path.stat().st_size if path.exists() else 0
                failures = failures + 1 if after <= before else 1
                if failures >= TRIES:
                    raise Unreachable(_text(error)) from None
                time.sleep(random.uniform(0, PAUSE_S * 2**failures))
            else:
                return found

    def _pieces(self, file: RemoteFile, path: Path) -> _Done:
        offset = path.stat().st_size if path.exists() and file.mark else 0
        if file.size_bytes is not None and offset > file.size_bytes:
            offset = 0
        digest = hashlib.sha256()
        if file.size_bytes is None or offset < file.size_bytes or not offset:
            begin, stream = self._source.open(file, offset)
        else:
            begin, stream = offset, None  # it ended between its last byte and its line
        with path.open("r+b" if begin else "wb", buffering=0) as out:  # a kill loses nothing of it
            self._take_in(out.fileno(), begin, digest.update)
            out.seek(begin)
            size = begin
            if stream is not None:
                with closing(stream):
                    self._begin()
                    while piece := _read(stream.read):
                        size += len(piece)
                        self._count(file.name, size, come_bytes=len(piece))
                        _write(out, piece)
                        digest.update(piece)
        if file.size_bytes is not None and size < file.size_bytes:
            raise ConnectionError("the connection broke")
        if file.size_bytes is not None and size > file.size_bytes:
            raise Unreachable("it is larger than it says")
        return _Done(file.name, size, digest.hexdigest())

    def _take_in(self, fd: int, size: int, update: Callable[[bytes], None]) -> None:
        """Reads again what an earlier try has written."""
        for start in range(0, size, PIECE_BYTES):
            update(os.pread(fd, min(PIECE_BYTES, size - start), start))

    def _begin(self) -> None:
        """Says that bytes come, before it is said how many."""
        with self._counting:
            begun, self._begun = self._begun, None
            if begun is not None:
                begun()

    def _count(self, name: str, size: int, *, come_bytes: int = 0) -> None:
        """Says how much of a file is here, and how much of it has come just now."""
        with self._counting:
            self._come_bytes += come_bytes
            self._done_bytes += size - self._sizes.get(name, 0)
            self._sizes[name] = size
            if self._done_bytes > self._most_bytes:
                raise TooMuch
            self._grown(Grown(self._done_bytes, self._come_bytes))

    def _unpacked(self) -> list[_Done]:
        """Unpacks the bundle."""
        tree = self._folder / TREE
        remove_tree(tree)
        unpack(next(self._into.iterdir()), tree)
        files = sorted(path for path in tree.rglob("*") if path.is_file())
        return [
            _Done(path.relative_to(tree).as_posix(), path.stat().st_size, _sha256(path))
            for path in files
        ]

    def _whole(self, files: list[_Done], *, is_folder: bool) -> Fetched:
        """Makes it durable, nobody's to change, and only then `whole`."""
        tree = self._folder / TREE
        digest = files[0].sha256
        if is_folder:
            digest = hashlib.sha256(msgspec.json.encode(files)).hexdigest()
        times = []
        for one in files:
            path = tree.joinpath(*parts_of(one.name))
            path.chmod(0o555 if path.stat().st_mode & 0o100 else 0o444)
            sync(path)
            times.append((one.name, one.size_bytes, path.stat().st_mtime_ns))
        name = "" if is_folder else files[0].name
        size = sum(one.size_bytes for one in files)
        meta = Meta(digest=f"sha256:{digest}", size_bytes=size, files=times, name=name)
        whole = self._folder / WHOLE
        remove_tree(whole)
        whole.mkdir()
        (whole / META).write_bytes(msgspec.json.encode(meta))
        sync(whole / META)
        tree.rename(whole / TREE)
        for path in (*(whole / TREE).rglob("*"), whole / TREE):
            if path.is_dir():
                sync(path)
                path.chmod(0o555)
        sync(whole)
        # The same bytes under another name are another object: programs go by the suffix.
        object_id = hashlib.sha256(f"{digest} {name}".encode()).hexdigest()
        return Fetched(object_id=object_id, size_bytes=size, come_bytes=self._come_bytes)


def _write(out: io.FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[out.write(rest) :]


def _read(read: Callable[[int], bytes]) -> bytes:
    try:
        return read(PIECE_BYTES)
    except ValueError:  # what http.client says of a broken answer
        raise ConnectionError("the connection broke") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(error: Exception) -> str:
    return str(error) if isinstance(error, ConnectionError) and not error.errno else "it broke off"
