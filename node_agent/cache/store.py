"""What the cache holds on disk: objects that are whole, what keys stand for, and what goes to make room.

Everything here blocks, and is called by one thread alone. An object is known by one rename, and gone by
one. Room is made by dropping what was used least recently and nobody has pinned. What a job that waits is
expected to use here goes last, and only to make room for a lease.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from node_agent.cache.folders import META, TREE, WHOLE, remove_tree, sync
from node_agent.cache.terms import Meta
from node_agent.files import replace_file

PARTIAL_DAYS = 7
KEPT_FREE = 0.05  # part of the disk that is left to others
TENANTS_MAX = 64
_DAY_S = 86_400
_T = TypeVar("_T")


class Ref(msgspec.Struct, kw_only=True):
    """`refs/<key>.json`. uri: without its query, which may hold a credential."""

    object_id: str
    uri: str
    tenants: list[str]


@dataclass(slots=True)
class Held:
    """An object that is here. `path` is its file, or its folder."""

    object_id: str
    path: Path
    meta: Meta
    used_at_ms: int
    refs: dict[str, Ref] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class User:
    """Who uses an object until it is released: a lease, and the job and tenant of it.

    `ahead`: nobody uses it yet; a job that waits is expected to.
    """

    owner: str
    job_id: str
    tenant_id: str
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as it is listed."""

    uris: tuple[str, ...]  # that have led to it
    digest: str
    size_bytes: int
    used_at_ms: int
    pinned_by: tuple[str, ...]  # ids of jobs
    tenants: tuple[str, ...]


class NoRoom(Exception):
    """It does not fit beside what is in use; `room_bytes` would."""

    def __init__(self, room_bytes: int) -> None:
        super().__init__(room_bytes)
        self.room_bytes = room_bytes


class Shelf:
    """The cache's folder."""

    def __init__(self, folder: Path, *, budget_bytes: int) -> None:
        """Touches nothing yet; the folder is absolute."""
        self.partials = folder / "partial"
        self.objects: dict[str, Held] = {}
        self._budget_bytes = budget_bytes
        self._pins: dict[str, dict[str, str]] = {}  # object → owner → job
        self._expected: dict[str, dict[str, str]] = {}  # the same of what is to be used later
        self._folder = folder
        self._objects = folder / "objects"
        self._refs = folder / "refs"
        self._trash = folder / "trash"

    def open(self) -> None:
        """Makes the folders, and finds again what an earlier agent has kept. OSError."""
        for folder in (self.partials, self._objects, self._refs):
            folder.mkdir(parents=True, exist_ok=True)
        # Others find their way to an object whose name they were told, and cannot list the others.
        for folder in (self._folder, self._objects):
            folder.chmod(0o711)
        self.partials.chmod(0o700)
        remove_tree(self._trash)
        self._trash.mkdir(mode=0o700)
        self.objects = {held.object_id: held for held in self._found()}
        for path in self._refs.glob("*.json"):
            ref = _read(path, Ref)
            if ref is not None and ref.object_id in self.objects:
                self.objects[ref.object_id].refs[path.stem] = ref
            else:
                path.unlink()
        old_s = time.time() - PARTIAL_DAYS * _DAY_S
        for path in self.partials.iterdir():
            if path.stat().st_mtime < old_s:
                remove_tree(path)

    def find(self, key: str, user: User) -> Held | None:
        """The object of a key, in use from now on; None where it is not here, or not what it was."""
        held = next((one for one in self.objects.values() if key in one.refs), None)
        if held is None:
            return None
        if not _is_whole(held):
            self._remove(held.object_id)
            return None
        self._use(held, key, user=user, uri=held.refs[key].uri)
        return held

    def commit(self, key: str, object_id: str, *, uri: str, user: User) -> Held:
        """Takes over what was fetched for a key, in use from now on. OSError."""
        fetched = self.partials / key
        held = self.objects.get(object_id)
        if held is not None and not _is_whole(held):
            self._remove(object_id)
            held = None
        if held is None:
            path = self._objects / object_id
            remove_tree(path)
            (fetched / WHOLE).rename(path)
            sync(self._objects)
            held = _held(path)
            if held is None:
                raise OSError(5, "what was fetched cannot be read")
            self.objects[object_id] = held
        self._use(held, key, user=user, uri=uri)
        remove_tree(fetched)
        return held

    def pin(self, object_ids: Collection[str], *, owner: str, job_id: str) -> None:
        """Says that somebody whom an earlier agent served uses objects."""
        for object_id in object_ids:
            self._pins.setdefault(object_id, {})[owner] = job_id

    def release(self, owner: str) -> None:
        """Says that somebody uses nothing any more."""
        for pins in (self._pins, self._expected):
            for object_id, owners in list(pins.items()):
                owners.pop(owner, None)
                if not owners:
                    del pins[object_id]

    def make_room(
        self, need_bytes: int, *, reserved_bytes: int, busy: Collection[str], ahead: bool = False
    ) -> int:
        """Drops what nobody uses until so much more fits; returns how much may be fetched.

        `need_bytes`: 0 for not known. `reserved_bytes` are others' who are fetching; `busy` are keys.
        `ahead`: what others are expected to use stays too, and what is fetched has a known size.

        Raises:
            NoRoom: it does not fit.
        """
        begun = [path for path in self.partials.iterdir() if path.name not in busy]
        begun_bytes = sum(map(_size, begun))
        disk = shutil.disk_usage(self._folder)
        left_bytes = max(0, disk.free - int(disk.total * KEPT_FREE))
        budget = min(self._budget_bytes, self.used_bytes + begun_bytes + left_bytes)
        sizes = {key: held.meta.size_bytes for key, held in self.objects.items()}
        kept = self._pins.keys() | (self._expected if ahead else ())
        pinned = sum(size for key, size in sizes.items() if key in kept)
        room = max(0, budget - reserved_bytes - pinned)
        if need_bytes > room or not room or (ahead and not need_bytes):
            raise NoRoom(room)
        most_bytes = budget - reserved_bytes - need_bytes
        if self.used_bytes + begun_bytes > most_bytes:
            for path in begun:
                remove_tree(path)
        for held in sorted(self.objects.values(), key=self._how_dear):
            if self.used_bytes <= most_bytes:
                break
            if held.object_id not in kept:
                self._remove(held.object_id)
        return need_bytes or room

    def entries(self) -> list[Entry]:
        """All objects, the most recently used first."""
        return [
            Entry(
                uris=tuple(dict.fromkeys(ref.uri for ref in held.refs.values())),
                digest=held.meta.digest,
                size_bytes=held.meta.size_bytes,
                used_at_ms=held.used_at_ms,
                pinned_by=self._pinned_by(held.object_id),
                tenants=tuple(dict.fromkeys(t for ref in held.refs.values() for t in ref.tenants)),
            )
            for held in sorted(self.objects.values(), key=lambda one: -one.used_at_ms)
        ]

    def _how_dear(self, held: Held) -> tuple[bool, int]:
        """What is least dear goes first."""
        return held.object_id in self._expected, held.used_at_ms

    def _pinned_by(self, object_id: str) -> tuple[str, ...]:
        """The jobs that use an object, and those that are expected to."""
        using, later = (pins.get(object_id, {}) for pins in (self._pins, self._expected))
        return tuple(dict.fromkeys((*using.values(), *later.values())))

    def _remove(self, object_id: str) -> None:
        """Drops an object; whoever has a file of it open keeps that. OSError."""
        held = self.objects.pop(object_id)
        for key in held.refs:
            (self._refs / f"{key}.json").unlink(missing_ok=True)
        gone = self._trash / os.urandom(8).hex()
        with suppress(FileNotFoundError):
            os.chmod(self._objects / object_id, 0o700)
            (self._objects / object_id).rename(gone)
        remove_tree(gone)

    @property
    def used_bytes(self) -> int:
        """Bytes of all objects."""
        return sum(held.meta.size_bytes for held in self.objects.values())

    def _found(self) -> Iterator[Held]:
        for path in sorted(self._objects.iterdir()):
            held = _held(path)
            if held is not None:
                yield held
            else:
                remove_tree(path)

    def _use(self, held: Held, key: str, *, user: User, uri: str) -> None:
        """Notes a use, on disk too: which is the least recently used outlives the agent."""
        ref = held.refs.get(key)
        if ref is None:
            ref = held.refs[key] = Ref(object_id=held.object_id, uri=uri, tenants=[])
        pins = self._expected if user.ahead else self._pins
        pins.setdefault(held.object_id, {})[user.owner] = user.job_id
        if user.tenant_id not in ref.tenants:
            ref.tenants = [*ref.tenants, user.tenant_id][-TENANTS_MAX:]
            replace_file(self._refs / f"{key}.json", msgspec.json.encode(ref))
        held.used_at_ms = time.time_ns() // 1_000_000
        with suppress(OSError):
            os.utime(self._objects / held.object_id / META)


def _held(path: Path) -> Held | None:
    """The object of a folder; None where it is none."""
    meta = _read(path / META, Meta)
    if meta is None or not (path / TREE).is_dir():
        return None
    used_at_ms = (path / META).stat().st_mtime_ns // 1_000_000
    inside = path / TREE / meta.name if meta.name else path / TREE
    return Held(object_id=path.name, path=inside, meta=meta, used_at_ms=used_at_ms)


def _is_whole(held: Held) -> bool:
    """Whether nobody has changed a file since; jobs of the agent's own user could."""
    tree = held.path.parent if held.meta.name else held.path
    try:
        for name, size_bytes, mtime_ns in held.meta.files:
            facts = os.lstat(tree / name)
            if (facts.st_size, facts.st_mtime_ns) != (size_bytes, mtime_ns):
                return False
    except OSError:
        return False
    return True


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _size(path: Path) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
