"""Unpacks a job's source bundle, a zip or a tar (plain or gzip), by strict rules.

Names and kinds in an archive are hostile, and Python's own filters have been bypassed again and again. So
nothing is extracted by a library: only plain files and folders are taken, each is written here into a
fresh folder that nobody else writes to, through descriptors that follow no link, and nothing is ever
written over. One bad member refuses the whole of it.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from node_agent.cache.names import BadName, folded, parts_of
from node_agent.cache.terms import MIB

MEMBERS_MAX = 10_000
BYTES_MAX = 512 * MIB
RATIO_MAX = 100
SMALL_BYTES = 1 * MIB  # what may come of any archive, however small
PIECE_BYTES = 1 * MIB
READ_MAX = 4 * MIB  # at once, also of headers
_ZIPPED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_GZIP = b"\x1f\x8b"
_ZIP = b"PK"


class BadBundle(Exception):
    """A bundle that is refused; the text is for the user."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    is_folder: bool
    is_program: bool
    open: IO[bytes] | None


def unpack(archive: Path, into: Path) -> None:
    """Unpacks an archive into a folder that is made here; where it is refused the rest stays behind.

    Raises:
        BadBundle: it breaks a rule, is damaged, or is neither zip nor tar.
        OSError: the disk refuses.
    """
    into.mkdir(mode=0o700)
    root = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        with archive.open("rb") as file:
            most = min(BYTES_MAX, max(SMALL_BYTES, RATIO_MAX * os.fstat(file.fileno()).st_size))
            _Unpacking(root, most).all(_members(file, most))
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile):
        raise BadBundle("the archive is damaged") from None
    except (
        NotImplementedError,
        RuntimeError,
        UnicodeError,
        ValueError,
        OverflowError,
        MemoryError,
    ):
        raise BadBundle("the archive is not plainly written") from None
    except BadName as fault:
        raise BadBundle(f"the archive: {fault}") from None
    finally:
        os.close(root)


class _Unpacking:
    """One archive being unpacked below a folder."""

    def __init__(self, root: int, most_bytes: int) -> None:
        self._root = root
        self._left_bytes = most_bytes
        self._names: dict[str, bool] = {}  # folded name → whether it was a member itself
        self._folders: set[tuple[str, ...]] = set()

    def all(self, members: Iterator[_Member]) -> None:
        is_empty = True
        for count, member in enumerate(members, 1):
            if count > MEMBERS_MAX:
                raise BadBundle(f"the archive has more than {MEMBERS_MAX} members")
            parts = parts_of(member.name)
            self._claim(parts, is_folder=member.is_folder)
            if member.is_folder:
                os.close(self._folder(parts))
            elif member.open is not None:
                is_empty = False
                with closing(member.open):
                    self._write(parts, member)
        if is_empty:
            raise BadBundle("the archive holds no file")

    def _claim(self, parts: tuple[str, ...], *, is_folder: bool) -> None:
        """Every name comes once; a folder on the way to others may come before or after them."""
        key = folded(parts)
        for depth in range(1, len(parts)):
            self._same(parts[:depth])
        if is_folder:
            self._same(parts)
        if key in self._names and (self._names[key] or not is_folder):
            raise BadBundle(f"the archive names {'/'.join(parts)[:100]!a} twice")
        self._names[key] = True

    def _same(self, folder: tuple[str, ...]) -> None:
        """A folder is written in one way only."""
        key = folded(folder)
        if folder not in self._folders:
            if key in self._names:
                raise BadBundle(f"the archive names {'/'.join(folder)[:100]!a} twice")
            self._folders.add(folder)
            self._names[key] = False

    def _folder(self, parts: tuple[str, ...]) -> int:
        """A descriptor of a folder, made where it is missing."""
        fd = os.dup(self._root)
        for part in parts:
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=fd)
                deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except NotADirectoryError:
                raise BadBundle("the archive has a file and a folder of one name") from None
            finally:
                os.close(fd)
            fd = deeper
        return fd

    def _write(self, parts: tuple[str, ...], member: _Member) -> None:
        assert member.open is not None, "only files are written"
        folder = self._folder(parts[:-1])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            fd = os.open(parts[-1], flags, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        with open(fd, "wb") as file:
            while piece := member.open.read(PIECE_BYTES):
                self._left_bytes -= len(piece)
                if self._left_bytes < 0:
                    raise BadBundle(
                        f"the archive holds more than {BYTES_MAX // MIB} MiB, or"
                        f" {RATIO_MAX} times its own size"
                    )
                file.write(piece)
            os.fchmod(fd, 0o500 if member.is_program else 0o400)


def _members(file: IO[bytes], most_bytes: int) -> Iterator[_Member]:
    head = file.read(2)
    file.seek(0)
    if head == _ZIP:
        return _zipped(file)
    if head == _GZIP:
        return _tarred(_Bounded(gzip.GzipFile(fileobj=file), most_bytes))
    return _tarred(_Bounded(file, most_bytes))


def _zipped(file: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.orig_filename  # `filename` is cut where it holds NUL
            mode = info.external_attr >> 16
            is_folder = name.endswith("/")
            kind = stat.S_IFMT(mode)
            if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
                raise BadBundle(f"the archive: {name[:100]!a} is neither a file nor a folder")
            if info.flag_bits & _ENCRYPTED or info.compress_type not in _ZIPPED:
                raise BadBundle(f"the archive: {name[:100]!a} is encrypted, or oddly packed")
            if info.header_offset < 0:  # to which no file can be wound
                raise BadBundle("the archive is damaged")
            content = None if is_folder else archive.open(info)
            name = name.removesuffix("/")
            yield _Member(name, is_folder, bool(mode & 0o100), content)


def _tarred(file: _Bounded) -> Iterator[_Member]:
    # A stream is read once, from its beginning to its end: no header can point elsewhere.
    with tarfile.open(fileobj=file, mode="r|", errorlevel=2) as archive:
        for info in archive:
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
                name = ascii(info.name[:100])
                raise BadBundle(f"the archive: {name} is neither a file nor a folder")
            if info.isdir() and info.name == ".":
                continue  # what `tar -C folder .` writes first
            content = None if info.isdir() else archive.extractfile(info)
            name = info.name.removeprefix("./")
            yield _Member(name, info.isdir(), bool(info.mode & 0o100), content)


class _Bounded(io.RawIOBase):
    """A stream that ends loudly once too much was read, in all or at once."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, most_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._left_bytes = most_bytes + 2048 * MEMBERS_MAX

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= READ_MAX:
            raise BadBundle("the archive has a header that is too large")
        piece = self._file.read(size)
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise BadBundle("the archive unpacks to far more than its own size")
        return piece
