"""When the coordinator was last in contact: one number in a file, for whoever has to know.

Theory of operation. The agent notes when it sent the call that was answered last: eight bytes,
written in place, milliseconds of boot time. Supervisors read the file by its path when their
deadline comes up, and not before; a contact costs one small write, however many ranks there are.
A number that was not written in this boot, or not by an agent, is in the future or too old, and
both mean the same: no contact since the rank was ordered.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from node_agent.runtime.kernel import boot_now_ms

_NUMBER = struct.Struct("=q")


class Contact:
    """The agent's end. `sent_ms`: boot time at which the call was sent that was answered last."""

    def __init__(self, path: str) -> None:
        """Goes on where an earlier agent of this boot has ended."""
        self.path = path
        self.sent_ms = read(path)

    def note(self, sent_ms: int) -> None:
        """A call that was sent then was answered. OSError where the disk refuses."""
        self.sent_ms = sent_ms
        # Opened each time, so that a file that was removed is there again with the next contact.
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, _NUMBER.pack(sent_ms), 0)
        finally:
            os.close(fd)


def read(path: str) -> int:
    """The number in the file; 0 where there is none that this boot can have written."""
    data = b""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.pread(fd, _NUMBER.size, 0)
        finally:
            os.close(fd)
    if len(data) != _NUMBER.size:
        return 0
    (sent_ms,) = _NUMBER.unpack(data)
    return sent_ms if 0 < sent_ms <= boot_now_ms() else 0
