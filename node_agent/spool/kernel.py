"""What this room asks of the kernel beyond the standard library: giving file blocks back, and a
hint when files change. Where the kernel has neither, files stay whole and the hint is a short timer.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

BLOCK_BYTES = 4096
POLL_S = 0.025
SAFETY_POLL_S = 0.5

_KEEP_SIZE_AND_PUNCH = 0x01 | 0x02
_IN_MODIFY_OR_CREATE = 0x02 | 0x100
_IN_Q_OVERFLOW = 0x4000
_HEADER = struct.Struct("iIII")  # of an announcement: watch, mask, cookie, size of the name
_IN_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


def punch(descriptor: int, *, begin: int, end: int) -> None:
    """Frees the whole blocks of a file between two byte offsets; they read as zeros from then on.

    Does nothing where the file system cannot.
    """
    begin = -(-begin // BLOCK_BYTES) * BLOCK_BYTES
    size = end // BLOCK_BYTES * BLOCK_BYTES - begin
    fallocate = getattr(_libc, "fallocate", None)
    if size > 0 and fallocate is not None:
        fallocate(descriptor, _KEEP_SIZE_AND_PUNCH, ctypes.c_int64(begin), ctypes.c_int64(size))


def next_data(descriptor: int, offset: int) -> tuple[int, int]:
    """Begin and end of the next bytes at or after `offset` that were not punched.

    Both are the end of the file where nothing but a hole is left.
    """
    size = os.fstat(descriptor).st_size
    try:
        begin = os.lseek(descriptor, offset, os.SEEK_DATA)
        return begin, os.lseek(descriptor, begin, os.SEEK_HOLE)
    except OSError:
        return max(offset, size), max(offset, size)


class Changes:
    """Wakes its reader when something happens to one of some files in one of the watched folders.

    It is a hint: where it knows nothing, and every now and then, the reader looks at all of them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Watches for files of these names."""
        self._names = frozenset(os.fsencode(name) for name in names)
        self._wake = asyncio.Event()
        self._is_time = False  # to look at all
        self._watches: dict[Path, int] = {}
        self._folders: dict[int, Path] = {}
        init = getattr(_libc, "inotify_init1", None)
        self._descriptor: int = init(_IN_NONBLOCK_CLOEXEC) if init is not None else -1

    def add(self, folder: Path) -> None:
        """Begins with a folder; a folder that cannot be watched is found by the timer."""
        if self._descriptor >= 0:
            path = os.fsencode(folder)
            watch = _libc.inotify_add_watch(self._descriptor, path, _IN_MODIFY_OR_CREATE)
            if watch >= 0:
                self._watches[folder] = watch
                self._folders[watch] = folder
        self.wake()

    def remove(self, folder: Path) -> None:
        """Ends with a folder."""
        watch = self._watches.pop(folder, None)
        if watch is not None:
            del self._folders[watch]
            _libc.inotify_rm_watch(self._descriptor, watch)

    def wake(self) -> None:
        """Wakes the reader."""
        self._wake.set()

    def begin_round(self) -> Collection[Path] | None:
        """The folders in which something was announced since the last round; None: look at all.

        To be called before the files are looked at.
        """
        self._wake.clear()
        found: dict[Path, None] = {}
        is_time, self._is_time = self._is_time, False
        if self._descriptor >= 0:
            with suppress(BlockingIOError):
                while data := os.read(self._descriptor, 64 * 1024):
                    is_time = not self._take(data, found) or is_time
        return None if is_time else found

    async def wait(self, *, watched: int) -> None:
        """Returns after the next change, or once it is time to look at all; `watched` folders."""
        complete = self._descriptor >= 0 and len(self._watches) >= watched
        loop = asyncio.get_running_loop()
        if self._descriptor >= 0:
            loop.add_reader(self._descriptor, self._wake.set)
        try:
            # Without anything to watch, only `wake` brings something new.
            timeout_s = None if not watched else SAFETY_POLL_S if complete else POLL_S
            # Not wait_for: before Python 3.12 it may swallow a cancellation.
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            self._is_time = True
        finally:
            if self._descriptor >= 0:
                loop.remove_reader(self._descriptor)

    def close(self) -> None:
        """Ends all of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _take(self, data: bytes, found: dict[Path, None]) -> bool:
        """Adds the folders of some announcements; False where the kernel dropped others."""
        offset = 0
        complete = True
        while offset < len(data):
            watch, mask, _, size = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size + size
            folder = self._folders.get(watch)
            if mask & _IN_Q_OVERFLOW:
                complete = False
            elif folder is not None and data[offset - size : offset].rstrip(b"\0") in self._names:
                found[folder] = None
        return complete
