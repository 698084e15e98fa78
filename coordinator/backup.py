"""`python -m coordinator.backup`: copies of the state, made while it is used, and put back.

A backup is a folder: the two databases, a manifest with their sizes and digests, the secrets where
asked for. It is built aside and renamed into place, so a folder of that name is whole. A backup of a
shared store (Redis) is the same two databases, so that either store can be restored from either.

Theory of operation. Each database is copied inside one read transaction: the copy is its state at one
commit. The records are copied first and the logs after them, so the logs may be newer than the records,
never older. The other way round a record could say that a job has ended and its log lacked the end; and
agents keep their spools until a lease is forgotten, so what a log lacks beyond the records may be sent
again, while what a record has beyond its log may be gone for ever.

A restored state is older than the truth. Leases that were granted after the backup are unknown to it,
and their agents stop them. So that nothing of that time can be mistaken for what is granted from now on,
restoring raises the leader's epoch over every one that there can have been. And it marks every node:
nothing is placed before all of them were heard, or are out of contact.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from coordinator.core.records import Kind
from coordinator.data_dir import SCHEMAS, SECRETS, STORE, STORE_ID, STREAMS, present
from coordinator.runtime.settings import is_shared
from coordinator.sqlite.files import FileLock, FileTrouble, beside, connect, prepare, sync
from coordinator.store.codec import decode, encode

MANIFEST = "manifest.json"
FORMAT = 1
MANIFEST_BYTES_MAX = 1 << 20
PIECE_BYTES = 1 << 20
EPOCH_ZERO_S = 1_577_836_800  # 2020-01-01; epochs of a restored store count seconds from here
EXIT_REFUSED = 3
EMBEDDED = "sqlite"  # as --store names it


class Copied(msgspec.Struct, frozen=True):
    """A file of a backup."""

    bytes: int
    sha256: str
    schema: int = 0  # of a database


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself."""

    format: int
    made_at: str  # RFC 3339
    epoch: int  # of the leader at that time
    version: int  # of the store: batches committed
    live_jobs: int
    files: dict[str, Copied]
    store_id: str = ""  # of a shared store, which its coordinators remember


def make(folder: Path, data_dir: Path, *, store: str = EMBEDDED, secrets: bool = False) -> Manifest:
    """Copies the state into a new folder; the coordinator may go on meanwhile.

    `store` is what the coordinator is given as --store; the secrets are those of the data directory.

    Raises:
        FileTrouble: nothing was made; the text says why.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileTrouble(f"{folder} exists; a backup never overwrites anything")
    for name in SCHEMAS if not is_shared(store) else ():
        if not (data_dir / name).is_file():
            raise FileTrouble(f"{data_dir} has no {name}; there is nothing to back up")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        identity = _copy_state(data_dir, draft, store=store)
        for name in SECRETS if secrets else ():
            if (data_dir / name).is_file():
                _copy_file(data_dir / name, draft / name)
        manifest = _describe(draft, identity)
        _write(draft / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        sync(draft)
        draft.rename(folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return manifest


def restore(folder: Path, data_dir: Path, *, store: str = EMBEDDED) -> Manifest:
    """Puts a backup where there is no state: into a data directory, or into the Redis that `store` names.
    Secrets that the data directory has stay.

    Raises:
        FileTrouble: nothing was changed; the text says why.
    """
    manifest = _read_manifest(folder)
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if is_shared(store):
        return _restore_shared(folder, data_dir, store=store, manifest=manifest)
    with _locked(data_dir):
        for name in SCHEMAS:
            if present(data_dir / name):
                raise FileTrouble(f"{data_dir} has {name} already; move it away first")
        drafts = [beside(data_dir / name, ".restored") for name in manifest.files]
        try:
            for draft in drafts:
                _take(folder / draft.stem, draft, expected=manifest.files[draft.stem])
            _mark(beside(data_dir / STORE, ".restored"))
        except BaseException:
            _clear(drafts)
            raise
        # the store last: as long as it is missing, no coordinator starts on what is there
        for draft in sorted(drafts, key=lambda draft: draft.stem == STORE):
            final = draft.with_name(draft.stem)
            if final.name in SECRETS and final.exists():
                draft.unlink()
            else:
                draft.rename(final)
            sync(data_dir)
    return manifest


def _restore_shared(folder: Path, data_dir: Path, *, store: str, manifest: Manifest) -> Manifest:
    from coordinator import redis_backup

    identity, known = manifest.store_id or uuid.uuid4().hex, data_dir / STORE_ID
    if known.exists() and known.read_text().strip() != identity:
        raise FileTrouble(
            f"{known} names another store than this backup is of; remove it from the data "
            "directories of all coordinators first"
        )
    with tempfile.TemporaryDirectory(prefix=".restored.", dir=data_dir) as name:
        drafts = Path(name)
        for one, expected in manifest.files.items():
            _take(folder / one, drafts / one, expected=expected)
        _mark(drafts / STORE)
        redis_backup.load(store, drafts, identity=identity)
        _write(known, f"{identity}\n".encode())
        for one in SECRETS:
            if (drafts / one).exists() and not (data_dir / one).exists():
                (drafts / one).rename(data_dir / one)
    sync(data_dir)
    return manifest


def empty_logs(data_dir: Path) -> None:
    """Makes an empty file of logs beside a store that has lost its own. Raises FileTrouble."""
    with _locked(data_dir):
        if not present(data_dir / STORE) or present(data_dir / STREAMS):
            raise FileTrouble(f"{data_dir} is not a store without logs; nothing was done")
        prepare(data_dir / STREAMS, SCHEMAS[STREAMS])


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Keeps coordinators away."""
    lock = FileLock(beside(data_dir / STORE, ".lock"))
    lock.take()
    try:
        yield
    finally:
        lock.release()


def _copy_state(data_dir: Path, draft: Path, *, store: str) -> str:
    """Copies both databases, in this order, see above; answers the identity of a shared store."""
    if is_shared(store):
        from coordinator import redis_backup  # only who has a Redis needs its client

        return redis_backup.save(store, draft)
    for name in (STORE, STREAMS):
        _copy_database(data_dir / name, draft / name)
    return ""


def _copy_database(source: Path, target: Path) -> None:
    target.touch(mode=0o600)
    with (
        contextlib.closing(connect(source, writes=True)) as one,
        contextlib.closing(sqlite3.connect(target)) as other,
    ):
        if _pragma(one, "application_id") != SCHEMAS[source.name].application_id:
            raise FileTrouble(f"{source} is a database of another program")
        one.execute("PRAGMA query_only = ON")
        one.backup(other)
        other.execute("PRAGMA journal_mode = DELETE")  # one file that stands by itself
        verdict = _pragma(other, "quick_check(1)")
        if verdict != "ok":
            raise FileTrouble(f"{source} is damaged ({verdict}); this backup was thrown away")
    sync(target)


def _copy_file(source: Path, target: Path) -> Copied:
    """Copies and brings to the disk."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("wb") as writing:
        os.fchmod(writing.fileno(), 0o600)
        while piece := reading.read(PIECE_BYTES):
            digest.update(piece)
            size += writing.write(piece)
        writing.flush()
        os.fsync(writing.fileno())
    return Copied(size, digest.hexdigest())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    sync(path)


def _describe(draft: Path, store_id: str) -> Manifest:
    files = {}
    for path in sorted(draft.iterdir()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        schema = len(SCHEMAS[path.name].migrations) if path.name in SCHEMAS else 0
        if schema:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                schema = _pragma(connection, "user_version")
        files[path.name] = Copied(path.stat().st_size, digest, schema)
    with contextlib.closing(sqlite3.connect(draft / STORE)) as connection:
        epoch, version, live_jobs = connection.execute(
            "SELECT epoch, version, (SELECT count(*) FROM jobs WHERE live) FROM leadership"
        ).fetchone()
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Manifest(FORMAT, now, epoch, version, live_jobs, files, store_id)


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _read_manifest(folder: Path) -> Manifest:
    try:
        with (folder / MANIFEST).open("rb") as file:
            manifest = msgspec.json.decode(file.read(MANIFEST_BYTES_MAX), type=Manifest)
    except OSError as error:
        raise FileTrouble(f"{folder} is no backup ({error.strerror}: {MANIFEST})") from error
    except msgspec.DecodeError as error:
        raise FileTrouble(f"{folder / MANIFEST} cannot be read ({error})") from error
    if manifest.format != FORMAT:
        raise FileTrouble(
            f"{folder} has format {manifest.format}, known here is {FORMAT}; use the program "
            "that made it"
        )
    if not manifest.files.keys() >= SCHEMAS.keys() or manifest.files.keys() - {*SCHEMAS, *SECRETS}:
        raise FileTrouble(f"{folder / MANIFEST} does not name the files of a backup")
    return manifest


def _take(source: Path, draft: Path, *, expected: Copied) -> None:
    """Copies a file of a backup beside where it will stand, and checks it."""
    _clear([draft])
    found = _copy_file(source, draft)
    if (found.bytes, found.sha256) != (expected.bytes, expected.sha256):
        raise FileTrouble(f"{source} is not what was backed up; use another backup")
    if source.name in SCHEMAS:
        prepare(draft, SCHEMAS[source.name])


def _clear(drafts: Sequence[Path]) -> None:
    for draft in drafts:
        for suffix in ("", "-wal", "-shm", "-journal"):
            beside(draft, suffix).unlink(missing_ok=True)


def _mark(store: Path) -> None:
    """Lifts the epoch over all that leaders since the backup can have had, and doubts every node.

    Each start takes one more, and starts take longer than a second: the seconds since a fixed day are
    above every epoch that has ever been given, here or after an earlier restore.
    """
    with contextlib.closing(connect(store, writes=True)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE leadership SET epoch = max(epoch, ?)", (int(time.time()) - EPOCH_ZERO_S,)
        )
        nodes = connection.execute("SELECT id, body FROM records WHERE kind = ?", (Kind.NODE,))
        for id, body in nodes.fetchall():
            node = replace(decode(Kind.NODE, body.encode()), restored=True)
            connection.execute(
                "UPDATE records SET body = ? WHERE kind = ? AND id = ?",
                (encode(node).decode(), Kind.NODE, id),
            )
        connection.execute("COMMIT")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; answers the exit status: 0 done, 2 usage, 3 refused, nothing was changed."""
    options = _parser().parse_args(argv)
    try:
        if options.verb == "make":
            manifest = make(
                options.folder, options.data_dir, store=options.store, secrets=options.secrets
            )
            print(f"backup in {options.folder}: {_told(manifest)}")
        elif options.verb == "restore":
            manifest = restore(options.folder, options.data_dir, store=options.store)
            print(f"restored as of {manifest.made_at}: {_told(manifest)}")
            print("leases granted since then will be stopped by their agents")
        else:
            empty_logs(options.data_dir)
            print(f"{options.data_dir} has no logs of before any more")
    except (FileTrouble, OSError, sqlite3.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _told(manifest: Manifest) -> str:
    size = sum(one.bytes for one in manifest.files.values())
    return f"{manifest.live_jobs} live jobs, version {manifest.version}, {size} bytes"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m coordinator.backup", description="Backups.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    taking = verbs.add_parser("make", help="copy the state, while the coordinator runs or not")
    taking.add_argument(
        "--secrets", action="store_true", help="with admin.key and the other secrets"
    )
    putting = verbs.add_parser("restore", help="put a backup where there is no state")
    for verb in (taking, putting):
        verb.add_argument("folder", type=Path, metavar="DIR", help="the backup")
        verb.add_argument(
            "--store",
            default=os.environ.get("MIND_STORE", EMBEDDED),
            help="as of the coordinator: sqlite, or the URL of a Redis",
        )
    dropping = verbs.add_parser("empty-logs", help="go on with a store whose logs are lost")
    default = Path(os.environ.get("MIND_DATA_DIR", ".mind"))
    taking.add_argument("--data-dir", type=Path, default=default, help="of the coordinator")
    for verb in (putting, dropping):
        verb.add_argument("--data-dir", type=Path, required=True, help="of the coordinator")
    return parser


if __name__ == "__main__":
    sys.exit(main())
