"""Disks that fail while a coordinator uses them, and work again."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("failing_disk.c")
LIMIT_BYTES = 4096
TMPFS_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Disk:
    """Where a data directory lies. `hurt` and `heal` take the pid of who writes there."""

    folder: Path
    hurt: Callable[[int], None]
    heal: Callable[[int], None]


Made = Iterator[Disk]


@contextmanager
def limited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """No file may grow beyond a limit."""
    free = resource.RLIM_INFINITY

    def limit(pid: int, most: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, free))

    yield Disk(folder, lambda pid: limit(pid, LIMIT_BYTES), lambda pid: limit(pid, free))


@contextmanager
def filled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A small file system that somebody else fills up."""
    options = ["-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "test"]
    subprocess.run(["mount", *options, str(folder)], check=True)
    ballast = folder / "ballast"

    def fill(pid: int) -> None:
        with ballast.open("wb", buffering=0) as file:
            for size in (65_536, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    try:
        yield Disk(folder, fill, lambda pid: ballast.unlink())
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Failing:
    """Calls to the system that fail as told, by a library that the program is started with."""

    def __init__(self, text: str) -> None:
        self._text = text

    @contextmanager
    def __call__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
        library, control = folder.parent / "failing_disk.so", folder.parent / "control"
        build = ["gcc", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(build, check=True, timeout=60)
        control.touch()
        monkeypatch.setenv("FAILING_DISK", str(control))
        monkeypatch.setenv("LD_PRELOAD", str(library))
        yield Disk(
            folder, lambda pid: _replace(control, self._text), lambda pid: _replace(control, "")
        )


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.rename(path)


def _can_mount() -> bool:
    """Whether this machine lets the tests have file systems of their own."""
    if os.geteuid() or not shutil.which("unshare"):
        return False
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "test", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


Make = Callable[[Path, pytest.MonkeyPatch], AbstractContextManager[Disk]]

DISKS: dict[str, Make] = {
    "a limit on files": limited,
    "fsync fails": Failing("sync 5"),
    "no space left": Failing("write 28"),
    "remounted read-only": Failing("write 30"),
}
if _can_mount():
    DISKS["a full file system"] = filled
