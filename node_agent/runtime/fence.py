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

    def set(self, after_ms: int) -> None:
        """Moves the deadline; 0 lifts it."""
        self._after_ms = after_ms
        self.is_due()

    def is_due(self) -> bool:
        """Whether the deadline has passed; `fd` becomes readable when there is more to do."""
        with suppress(OSError):  # nothing to read: it has not rung
            os.read(self.fd, 8)
        if not self._after_ms:
            self._timer.set(None)
            return False
        self._sent_ms = max(self._sent_ms, contact.read(self._path))
        deadline_ms = self._sent_ms + self._after_ms
        if boot_now_ms() < deadline_ms:
            self._timer.set(deadline_ms)
            return False
        left_ms = self.grace_left_ms()
        # The machine may sleep in the grace, which other timers do not notice.
        self._timer.set(boot_now_ms() + left_ms if left_ms else None)
        return True

    def grace_left_ms(self) -> int:
        """What is left of the rank's time between SIGTERM and SIGKILL.

        That is a third of the deadline, at most 10 s; less where the deadline is noticed late, because
        the machine slept or everything on it stood still: elsewhere nobody waits for that.
        """
        grace_ms = min(MAX_GRACE_MS, self._after_ms // 3)
        late_ms = max(0, boot_now_ms() - self._sent_ms - self._after_ms)
        return max(0, grace_ms - late_ms)
