"""Checks one source: opens it where it lies, parses it as what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from ipaddress import ip_network
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from coordinator.data import web
from coordinator.data.buckets import Bucket
from coordinator.data.local import Folders
from coordinator.data.parsers import SUFFIXES, parser_of
from coordinator.data.reading import Budget, Reading
from coordinator.data.terms import Finding, Question, Source, Unparseable, Unreachable
from scaimind.service.reach.resolvers import resolve
from scaimind.service.reach.stores import SCHEMES

LOCAL = ("local", "file")
FORMAT_MAX = 64


class _File(NamedTuple):
    """One file of a source: its name, and how it is opened."""

    name: str
    open: Callable[[], Reading]


class _Sum:
    """What the files of a source come to."""

    def __init__(self) -> None:
        self.samples = 0
        self.size_bytes: int | None = 0
        self.was_opened = False

    def add(self, reading: Reading, name: str, columns: tuple[str, ...]) -> None:
        """Parses a file. Raises Unreachable, Unparseable."""
        self.was_opened = True
        try:
            self.samples += parser_of(name)(reading, columns)
        finally:
            known = self.size_bytes is not None and reading.size_bytes is not None
            self.size_bytes = (self.size_bytes or 0) + (reading.size_bytes or 0) if known else None


def check(source: Source, question: Question) -> Finding:
    """What is found of a source; whatever is wrong with it is in its `error`."""
    budget = Budget(read_bytes=question.rules.read_bytes, seconds=question.rules.source_s)
    asked = source.format.strip().lower()[:FORMAT_MAX]
    try:
        files = _files(source, question, budget)
        if len(files) != 1:
            files = _of_format(files, asked)
    except Unreachable as fault:
        return Finding(format=asked or _format(source.path), error=str(fault))
    name = asked or _format(files[0].name) or _format(source.path)
    return _parsed(files, name, columns=source.columns, budget=budget)


def _parsed(files: list[_File], name: str, *, columns: tuple[str, ...], budget: Budget) -> Finding:
    total = _Sum()
    for file in files:
        try:
            reading = file.open()
            with closing(reading.stream):
                total.add(reading, name, columns)
        except (Unparseable, Unreachable) as fault:
            where = f"{PurePosixPath(file.name).name}: " if len(files) > 1 else ""
            return Finding(
                reachable=total.was_opened and isinstance(fault, Unparseable),
                format=name,
                size_bytes=total.size_bytes if len(files) == 1 and total.was_opened else None,
                error=f"{where}{fault}",
            )
        if budget.is_cut:
            break
    return Finding(
        reachable=True,
        parseable=True,
        format=name,
        num_samples=None if budget.is_cut else total.samples,
        size_bytes=None if budget.is_cut and len(files) > 1 else total.size_bytes,
    )


def _format(path: str) -> str:
    """The format that a name tells; "" where it tells none."""
    return SUFFIXES.get(PurePosixPath(path.partition("?")[0]).suffix.lower(), "")


def _of_format(files: Iterable[_File], asked: str) -> list[_File]:
    """Those of a folder's files that are of one format: of the asked one, else of the first known.

    Where no name tells of the asked format, every file is taken for one.
    """
    everything = list(files)
    wanted = asked or next((one for file in everything if (one := _format(file.name))), "")
    chosen = [file for file in everything if wanted and _format(file.name) == wanted]
    if not chosen and not (asked and everything):
        raise Unreachable("no file of a known format is there")
    return chosen or everything


def _files(source: Source, question: Question, budget: Budget) -> list[_File]:
    """The files of a source, one or those of a folder. Raises Unreachable."""
    scheme, path = _place(source)
    rules = question.rules
    if scheme == "local":
        return list(_local(Folders(rules, question.tenant_id), path, budget, most=rules.files))
    url = f"{scheme}://{path}"
    if scheme in SCHEMES:
        bucket = Bucket(url, rules, question.tenant_id)
        names = bucket.names(rules.files) if bucket.is_folder() else iter([""])
        return [_File(name or path, partial(bucket.open, name, budget)) for name in names]
    allowed = [ip_network(text) for text in rules.networks]
    if scheme in ("http", "https"):
        return [_File(path, partial(web.open_public, url, budget, allowed=allowed))]
    there = resolve(url, scheme, origins=rules.origins, tokens=question.tokens)
    if there.trusted:
        return [_File(path, partial(web.open_trusted, there.url, budget, headers=there.headers))]
    opened = partial(web.open_public, there.url, budget, allowed=allowed, headers=there.headers)
    return [_File(path, opened)]


def _local(folders: Folders, path: str, budget: Budget, *, most: int) -> Iterator[_File]:
    true = folders.resolve(path)
    if not true.is_dir():
        yield _File(path, partial(folders.open, true, budget))
        return
    for file in folders.files(true, most):
        budget.check_time()
        yield _File(str(file), partial(folders.open, file, budget))


def _place(source: Source) -> tuple[str, str]:
    """Scheme and rest of a source. Raises Unreachable where its type says another one."""
    scheme, is_uri, rest = source.path.partition("://")
    kind = source.type.strip().lower()
    if not is_uri:
        return ("local", source.path) if kind in ("", *LOCAL) else (kind, source.path)
    scheme = scheme.lower()
    if kind and kind != scheme and {kind, scheme} not in ({"http", "https"}, set(LOCAL)):
        raise Unreachable("its type is not that of its path")
    if scheme not in LOCAL:
        return scheme, rest
    machine, _, path = rest.partition("/")
    if machine not in ("", "localhost"):
        raise Unreachable("a file of another machine cannot be read")
    return "local", "/" + unquote(path)
