"""What can be fetched: a file over http(s), a file or a folder of a store, an archive of this machine.

A source says first what is there, and of each file a mark that changes with its content: what was begun
under one mark is never finished under another.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from ipaddress import ip_network
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from node_agent.cache.names import file_name, parts_of
from node_agent.cache.terms import MIB, Order, Rules
from scaimind.service.reach import Closed, Unreachable
from scaimind.service.reach.guard import Place, Target, places, target
from scaimind.service.reach.resolvers import resolve
from scaimind.service.reach.stores import SCHEMES, open_store, path_below, roots_for
from scaimind.service.reach.web import Connection, known_places

WAIT_S = 60.0  # for a connection, and for each piece
FILES_MAX = 100_000
BLOCK_BYTES = 8 * MIB
CHANGED = "it changed while it was being fetched"
NO_FILE = "there is no such file"
SAYS = {401: "access is denied there", 403: "access is denied there", 404: NO_FILE, 410: NO_FILE}


class RemoteFile(NamedTuple):
    """One file. `name` is relative to the source; size: None for not known; mark: "" for none."""

    name: str
    size_bytes: int | None
    mark: str


class Source(Protocol):
    """What is fetched from, by several threads at once; everything here raises Unreachable or OSError."""

    files: list[RemoteFile]
    is_folder: bool

    def open(self, file: RemoteFile, offset: int) -> tuple[int, IO[bytes]]:
        """A file's content from an offset on; the offset is 0 where it can only be had as a whole."""

    def check(self) -> None:
        """Looks once more: whether it is still what it was."""


def source_of(order: Order) -> Source:
    """The source of an order, which has been looked at. Raises Unreachable, BadName."""
    scheme, is_uri, path = order.uri.partition("://")
    scheme, rules = scheme.lower(), order.rules
    if not is_uri or scheme == "file":
        if not order.bundle:
            raise Unreachable("a path of this node is read where it is")
        return LocalFile(_local(order.uri), order.reader)
    if scheme in SCHEMES:
        where = path_below(f"{scheme}://{path}", roots_for(rules.roots, order.tenant_id))
        try:
            store = open_store(scheme, rules.endpoints.get(scheme, ""), wait_s=WAIT_S, attempts=5)
        except ImportError:
            raise Closed(f"{scheme}:// needs the extra `{scheme}` on this node") from None
        return StoreFiles(store, where)
    if scheme in ("http", "https"):
        return _public(f"{scheme}://{path}", rules, {})
    there = resolve(f"{scheme}://{path}", scheme, origins=rules.origins, tokens=order.tokens)
    if there.trusted:
        wanted = target(there.url)
        return WebFile(wanted, known_places(wanted), there.headers)
    return _public(there.url, rules, there.headers)


def _local(uri: str) -> Path:
    """The path of a path or file:// URI that the agent has judged."""
    return Path(unquote(urlsplit(uri).path) if "://" in uri else uri)


def _public(url: str, rules: Rules, headers: Mapping[str, str]) -> WebFile:
    wanted = target(url)
    name = wanted.name.lower().removesuffix(".")
    known = [one.lower() for one in rules.hosts]
    if known and not any(name == one or (one[:1] == "." and name.endswith(one)) for one in known):
        raise Closed("its host is not one that this node may ask")
    return WebFile(wanted, places(wanted, [ip_network(one) for one in rules.networks]), headers)


class WebFile:
    """A file behind a URL whose addresses were checked; redirects are not followed."""

    def __init__(self, wanted: Target, known: list[Place], headers: Mapping[str, str]) -> None:
        """Asks for it; the content of the first answer is kept for whoever opens it first."""
        self._wanted, self._known, self._headers = wanted, known, headers
        self._first: HTTPResponse | None = self._ask({})
        length = self._first.length
        last = unquote(PurePosixPath(urlsplit(wanted.resource).path).name)
        name = file_name(last, instead="data")
        self.files = [RemoteFile(name, length, _mark(self._first))]
        self.is_folder = False

    def open(self, file: RemoteFile, offset: int) -> tuple[int, IO[bytes]]:
        """The first answer, or a new one that goes on where the last ended."""
        answer, self._first = self._first, None
        if answer is None or offset:
            span = {"Range": f"bytes={offset}-", "If-Range": file.mark}
            answer = self._ask(span if offset and file.mark else {})
        if _mark(answer) != file.mark:
            raise Unreachable(CHANGED)
        if answer.status == 206:
            begin = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
            if begin != str(offset):
                raise Unreachable("it answers with another part than the one that was asked for")
            return offset, _Coming(answer)  # type: ignore[return-value]
        return 0, _Coming(answer)  # type: ignore[return-value]

    def check(self) -> None:
        """Each answer was held to the mark of the first."""

    def _ask(self, more: Mapping[str, str]) -> HTTPResponse:
        plain = {"Accept-Encoding": "identity", "User-Agent": "MindCoordinator"}
        for place in self._known:
            connection = Connection(self._wanted, place, wait_s=WAIT_S)
            try:
                headers = {**plain, **self._headers, **more}
                connection.request("GET", self._wanted.resource, headers=headers)
                return _judged(connection.getresponse())
            except (OSError, HTTPException, ValueError):
                connection.close()  # the next address may answer
        raise ConnectionError("nothing answers there")


class _Coming:
    """The content of an answer, given on as it comes."""

    def __init__(self, answer: HTTPResponse) -> None:
        self._answer = answer

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes."""
        return self._answer.read1(size)

    def close(self) -> None:
        """Closes the connection."""
        self._answer.close()


def _judged(answer: HTTPResponse) -> HTTPResponse:
    if 300 <= answer.status < 400:
        raise Unreachable("it answers with a redirect; those are not followed")
    if answer.status >= 500 or answer.status == 429:
        raise ConnectionError(f"it answers with status {answer.status}")
    if answer.status not in (200, 206):
        raise Unreachable(SAYS.get(answer.status, f"it answers with status {answer.status}"))
    if answer.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Unreachable("it sends its content compressed")
    return answer


def _mark(answer: HTTPResponse) -> str:
    """What tells one content from the next: a strong ETag, else the time of the last change."""
    etag = answer.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return str(etag)
    return str(answer.headers.get("Last-Modified", ""))


class StoreFiles:
    """A file or a folder of a file system of fsspec."""

    def __init__(self, store: Any, path: str) -> None:
        """Looks at it."""
        self._store, self._path = store, path
        self.is_folder, self.files = self._look()

    def open(self, file: RemoteFile, offset: int) -> tuple[int, IO[bytes]]:
        """Any part can be had."""
        path = f"{self._path}/{file.name}" if self.is_folder else self._path
        stream = _call(self._store.open, path, "rb", block_size=BLOCK_BYTES)
        if offset:
            _call(stream.seek, offset)
        return offset, _Quiet(stream)  # type: ignore[return-value]

    def check(self) -> None:
        """Stores give no file of a moment: what was read is good if nothing has changed since."""
        _call(self._store.invalidate_cache)
        if self._look() != (self.is_folder, self.files):
            raise Unreachable(CHANGED)

    def _look(self) -> tuple[bool, list[RemoteFile]]:
        facts = _call(self._store.info, self._path)
        if facts["type"] != "directory":
            name = file_name(PurePosixPath(self._path).name, instead="data")
            return False, [_remote(name, facts)]
        found = _call(self._store.find, self._path, detail=True)
        if len(found) > FILES_MAX:
            raise Unreachable(f"the folder holds more than {FILES_MAX} files")
        prefix = self._store._strip_protocol(self._path).rstrip("/") + "/"
        files = [
            _remote(str(path).removeprefix(prefix), facts)
            for path, facts in sorted(found.items())
            if facts["type"] == "file" and not str(path).endswith("/")
        ]
        if not files:
            raise Unreachable(NO_FILE)
        for file in files:
            parts_of(file.name)
        return True, files


_MARKS = ("ETag", "etag", "generation", "md5Hash", "mtime", "LastModified", "created")


def _remote(name: str, facts: Mapping[str, Any]) -> RemoteFile:
    size = facts.get("size")
    mark = next((f"{key} {facts[key]}" for key in _MARKS if facts.get(key)), "")
    return RemoteFile(name, None if size is None else int(size), mark)


class _Quiet:
    """A file of a store whose errors are those of the system."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes."""
        return bytes(_call(self._file.read, size))

    def close(self) -> None:
        """Closes it."""
        self._file.close()


def _call(function: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return function(*arguments, **options)
    except FileNotFoundError:
        raise Unreachable(NO_FILE) from None
    except PermissionError:
        raise Unreachable("access is denied there") from None
    except Exception as error:  # each library brings errors of its own
        raise ConnectionError("the store cannot be read") from error


class LocalFile:
    """An archive of this machine, read with the rights of those who will run it."""

    def __init__(self, path: Path, reader: tuple[int, int] | None) -> None:
        """Looks at it."""
        self._path, self._reader = path, reader
        self.is_folder = False
        with self._opened() as file:
            self.files = [self._look(file)]

    def open(self, file: RemoteFile, offset: int) -> tuple[int, IO[bytes]]:
        """Any part can be had."""
        with self._opened() as opened:
            if self._look(opened) != file:
                raise Unreachable(CHANGED)
            again = os.fdopen(os.dup(opened.fileno()), "rb")
        again.seek(offset)
        return offset, again

    def check(self) -> None:
        """Whether it is still what it was."""
        with self._opened() as file:
            if [self._look(file)] != self.files:
                raise Unreachable(CHANGED)

    def _look(self, file: IO[bytes]) -> RemoteFile:
        facts = os.fstat(file.fileno())
        mark = f"{facts.st_dev} {facts.st_ino} {facts.st_mtime_ns}"
        name = file_name(self._path.name, instead="data")
        return RemoteFile(name, facts.st_size, mark)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with _as(self._reader):
                fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise Unreachable((error.strerror or "it cannot be read").lower()) from None
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unreachable("it is not a file")
            yield file


@contextmanager
def _as(reader: tuple[int, int] | None) -> Iterator[None]:
    """With another user's rights, and no others; of this process all threads."""
    if reader is None:
        yield
        return
    groups, user, group = os.getgroups(), os.geteuid(), os.getegid()
    os.setgroups([])
    os.setegid(reader[1])
    os.seteuid(reader[0])
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
        os.setgroups(groups)
