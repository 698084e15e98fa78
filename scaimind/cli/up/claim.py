"""One `scaimind up` for each data directory: a lock, and a note of where its cluster is."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scaimind.cli import exits

LOCK = "up.lock"
NOTE = "up.json"
MAX_NOTE_BYTES = 65_536


@contextmanager
def claim(data_dir: Path) -> Iterator[None]:
    """Holds the data directory, which is made where it is missing.

    Raises:
        Fault: another `up` holds it, or it cannot be made.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        exits.fail(f"--data-dir {data_dir}: {error.strerror}")
    try:
        if not _lock(handle):
            exits.fail(
                f"another `scaimind up` runs in {data_dir}{_place(data_dir)}",
                hint="use that one, stop it, or give another --data-dir",
                code=exits.WRONG_STATE,
            )
        try:
            yield
        finally:
            (data_dir / NOTE).unlink(missing_ok=True)
    finally:
        os.close(handle)


def is_claimed(data_dir: Path) -> bool:
    """Whether an `up` runs in the data directory now."""
    try:
        handle = os.open(data_dir / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _lock(handle)
    finally:
        os.close(handle)


def write_note(data_dir: Path, note: dict[str, Any]) -> None:
    """Tells others where the cluster of this data directory is."""
    path = data_dir / NOTE
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(note), encoding="utf-8")
    draft.replace(path)


def read_note(data_dir: Path) -> dict[str, Any]:
    """What a running `up` tells of its cluster: url, grpc, pid, ready; empty where nothing."""
    try:
        with (data_dir / NOTE).open("rb") as file:
            note = json.loads(file.read(MAX_NOTE_BYTES))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _place(data_dir: Path) -> str:
    note = read_note(data_dir)
    return f" (pid {note.get('pid')}, {note.get('url')})" if note else ""
