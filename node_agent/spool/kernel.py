"""What this room asks of the kernel beyond the standard library: giving file blocks back, and a
hint when files change. Where the kernel has neither, files stay whole and the hint is a short timer.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from pathlib import Path

BLOCK_BYTES = 4096
POLL_S = 0.025
SAFETY_POLL_S = 0.5

_KEEP_SIZE_AND_PUNCH = 0x01 | 0x02
_IN_MODIFY_OR_CREATE = 0x02 | 0x100
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
    """Wakes its reader when something happens in one of the watched folders.

    It is a hint: the reader looks at all files whenever it wakes, and wakes by itself as well.
    """

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self._watches: dict[Path, int] = {}
        init = getattr(_libc, "inotify_init1", None)
        self._descriptor: int = init(_IN_NONBLOCK_CLOEXEC) if init is not None else -1

    def add(self, folder: Path) -> None:
        """Begins with a folder; a folder that cannot be watched is found by the timer."""
        if self._descriptor >= 0:
            path = os.fsencode(folder)
            watch = _libc.inotify_add_watch(self._descriptor, path, _IN_MODIFY_OR_CREATE)
            if watch >= 0:
                self._watches[folder] = watch
        self.wake()

    def remove(self, folder: Path) -> None:
        """Ends with a folder."""
        watch = self._watches.pop(folder, None)
        if watch is not None:
            _libc.inotify_rm_watch(self._descriptor, watch)

    def wake(self) -> None:
        """Wakes the reader."""
        self._wake.set()

    def begin_round(self) -> None:
        """Forgets what was announced so far; to be called before the files are looked at."""
        self._wake.clear()
        if self._descriptor >= 0:
            with suppress(BlockingIOError):
                while os.read(self._descriptor, 64 * 1024):
                    pass

    async def wait(self, *, watched: int) -> None:
        """Returns after the next change, or once it is time to look anyway; `watched` folders."""
        complete = self._descriptor >= 0 and len(self._watches) >= watched
        loop = asyncio.get_running_loop()
        if self._descriptor >= 0:
            loop.add_reader(self._descriptor, self._wake.set)
        try:
            # Without anything to watch, only `wake` brings something new.
            timeout_s = None if not watched else SAFETY_POLL_S if complete else POLL_S
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            pass
        finally:
            if self._descriptor >= 0:
                loop.remove_reader(self._descriptor)

    def close(self) -> None:
        """Ends all of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
