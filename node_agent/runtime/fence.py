"""The deadline after which a rank is stopped because nobody has heard from the coordinator.

Theory of operation. A coordinator that has heard nothing of a node for longer than this may start
the job elsewhere. So the deadline is counted from when the last answered call was *sent*, which is
before the coordinator received it, and it is held by the rank's supervisor alone: agents may be
frozen, killed, upgraded or gone. It counts while the machine sleeps.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from node_agent.runtime import contact
from node_agent.runtime.kernel import BootTimer, boot_now_ms

MAX_GRACE_MS = 10_000
FENCED = {
    "category": "NODE_LOST",
    "message": "the node was out of contact for too long, and stopped the job by itself",
}


class Fence:
    """One rank's deadline. Times are milliseconds of boot time."""

    def __init__(self, order: dict[str, Any]) -> None:
        """Takes of an order: contact (a path), sent_ms, fence_after_ms (0 for no deadline)."""
        self._path: str = order["contact"]
        self._sent_ms: int = order["sent_ms"]
        self._after_ms: int = order["fence_after_ms"]
        self._timer = BootTimer()
        self.fd = self._timer.fd
        self.is_due()

    @property
    def grace_ms(self) -> int:
        """What a rank gets between SIGTERM and SIGKILL: a third of the deadline, 10 s at most."""
        return min(MAX_GRACE_MS, self._after_ms // 3)

    def set(self, after_ms: int) -> None:
        """Moves the deadline; 0 lifts it."""
        self._after_ms = after_ms
        self.is_due()

    def is_due(self) -> bool:
        """Whether the deadline has passed; where it has not, `fd` becomes readable when it may."""
        with suppress(OSError):  # nothing to read: it has not rung
            os.read(self.fd, 8)
        if not self._after_ms:
            self._timer.set(None)
            return False
        self._sent_ms = max(self._sent_ms, contact.read(self._path))
        deadline_ms = self._sent_ms + self._after_ms
        self._timer.set(deadline_ms)
        if boot_now_ms() < deadline_ms:
            return False
        self._timer.set(None)
        return True
