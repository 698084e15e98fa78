"""One file of a rank, followed by byte offset.

The rank appends; this room reads, and gives back the disk blocks of what is no longer needed. The
file is the spool: an offset in it is a sequence number, and survives every restart.

Offsets only rise. A program that truncates its own output (`> /dev/stdout`) begins the file anew;
`base` is then the offset at which the present file begins.
"""

from __future__ import annotations

import os
from pathlib import Path

from node_agent.spool import kernel

CHUNK_BYTES = 128 * 1024
_ALIGN_BYTES = 1024 * 1024


class Tail:
    """Follows the file at `path` from `position` on; the file may not exist yet.

    `is_final`: nobody writes to it any more. Where it is short of `position`, the machine has lost its end.
    """

    def __init__(
        self, path: Path, *, position: int = 0, base: int = 0, is_final: bool = False
    ) -> None:
        self._path = path
        self._descriptor = -1
        self._old_end = 0
        self._punched = 0
        self._is_final = is_final
        self.base = base
        self.position = position
        self.gap = False
        """Bytes right before `position` were dropped."""
        self.continues = False
        """`position` is inside of a line."""

    def size(self) -> int:
        """The offset of the end of the file."""
        if self._descriptor < 0 and not self._open():
            return self.position
        end = self.base + os.lseek(self._descriptor, 0, os.SEEK_END)
        if end < self.position:
            self._begin_anew()
            end = self.base + os.lseek(self._descriptor, 0, os.SEEK_END)
        return end

    def read(self) -> bytes:
        """The next bytes, at most CHUNK_BYTES; the position stays. Empty where there are none."""
        if self.size() <= self.position:
            return b""
        if self.position >= self._old_end:
            return self._pread(self.position, CHUNK_BYTES)
        # What an earlier agent punched reads as zeros, which must not be taken for output.
        begin, end = kernel.next_data(self._descriptor, self.position - self.base)
        begin, end = begin + self.base, end + self.base
        if begin > self.position:
            self._jump(self._line_start(begin))
            return self.read()
        data = self._pread(begin, min(CHUNK_BYTES, end - begin))
        if b"\n" not in data and len(data) < CHUNK_BYTES and end < self._old_end:
            self._jump(end)
            return self.read()
        return data

    def advance(self, size: int, *, continues: bool) -> None:
        """Moves the position past `size` bytes that were read."""
        self.position += size
        self.gap = False
        self.continues = continues

    def release(self, offset: int) -> None:
        """Gives back the disk blocks of everything before `offset`."""
        # The byte before an offset stays, because it tells whether a line ended there.
        end = offset - self.base - 1
        if self._descriptor >= 0 and end - self._punched >= CHUNK_BYTES:
            kernel.punch(self._descriptor, begin=self._punched, end=end)
            self._punched = end // kernel.BLOCK_BYTES * kernel.BLOCK_BYTES

    def trim(self, budget_bytes: int) -> int:
        """Drops the oldest unread bytes where more than the budget is unread; returns how many."""
        end = self.size()
        if end - self.position <= budget_bytes:
            return 0
        # A quarter more than needed, so that it does not happen again at once.
        start = self._line_start(end - budget_bytes * 3 // 4)
        dropped = start - self.position
        kernel.punch(self._descriptor, begin=self.position - self.base, end=start - self.base - 1)
        self._jump(start)
        return dropped

    def skip_all(self) -> None:
        """Moves to the end of the file."""
        self.position = self.size()
        self.continues = False

    def rewind(self, offset: int) -> None:
        """Moves back to `offset`; what is gone from there on becomes a gap."""
        self.close()
        self.position = max(offset, self.base)
        self.gap = self.position > offset

    def close(self) -> None:
        """Closes the file; reading goes on with it opened again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        try:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            self._descriptor = os.open(self._path, flags)
        except OSError:
            return False
        self._old_end = self.base + os.fstat(self._descriptor).st_size
        if self._is_final:
            self.position = min(self.position, self._old_end)
        before = self._pread(self.position - 1, 1) if self.position > self.base else b""
        self.continues = before not in (b"", b"\n", b"\r", b"\0")
        return True

    def _begin_anew(self) -> None:
        self.base = self.position
        self._punched = self._old_end = 0
        self.gap = True
        self.continues = False

    def _jump(self, offset: int) -> None:
        self.position = offset
        self.gap = True
        self.continues = False

    def _line_start(self, offset: int) -> int:
        """The beginning of the first line after `offset`; `offset` where none begins soon."""
        data = self._pread(offset, _ALIGN_BYTES)
        return offset + data.find(b"\n") + 1

    def _pread(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset - self.base)
