"""Wakes those who follow a job. A subscription holds one bit, so a slow reader costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bells:
    """Subscriptions by job."""

    def __init__(self) -> None:
        self._rung: dict[str, dict[Bell, None]] = {}

    def subscribe(self, job_id: str) -> Bell:
        """A new subscription; close it when done."""
        bell = Bell(lambda: self._remove(job_id, bell))
        self._rung.setdefault(job_id, {})[bell] = None
        return bell

    def ring(self, job_id: str) -> None:
        """Wakes all who follow the job."""
        for bell in self._rung.get(job_id, ()):
            bell.ring()

    def _remove(self, job_id: str, bell: Bell) -> None:
        bells = self._rung.get(job_id, {})
        bells.pop(bell, None)
        if not bells:
            self._rung.pop(job_id, None)


class Bell:
    """A Subscription."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._event = asyncio.Event()
        self._on_close = on_close

    def ring(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        if not self._event.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
            except TimeoutError:
                return False
        self._event.clear()
        return True

    def close(self) -> None:
        self._on_close()
