"""Whether this coordinator may answer at all, before anything is asked of a call."""

from __future__ import annotations

from coordinator.core.reasons import Reason
from coordinator.runtime.leadership import RETRY_AFTER_S, Leadership
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View


class Gate:
    """Lets calls through while this process leads and knows what is stored.

    Nobody may be told that there is no such key, job or node by one that does not know them yet: after
    taking over, until the state was read, and at the first start of all, until the first key is kept.
    """

    def __init__(self, leadership: Leadership, view: View) -> None:
        self._leadership = leadership
        self._view = view

    def __call__(self) -> None:
        """Raises Refusal NOT_LEADER where the call belongs elsewhere, or comes too early."""
        self._leadership.check()
        if self._view.epoch != self._leadership.epoch or not self._view.keys:
            raise Refusal(
                Reason.NOT_LEADER,
                "this coordinator is still reading its state",
                retry_after_s=RETRY_AFTER_S,
            )
