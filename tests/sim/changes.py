"""The hint that a file has changed, as the kernel gives it: now and then not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from random import Random

from node_agent.spool.kernel import Changes

LOOKS_EVERY_S = 10.0
MISSED = 0.02


class SimChanges(Changes):
    """Announces what the ranks of one machine print."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._news = asyncio.Event()
        self._looks_at_all = False
        self._announced: dict[Path, None] = {}

    def announce(self, folder: Path) -> None:
        """Something was written in a folder."""
        if self._rng.random() >= MISSED:
            self._announced[folder] = None
            self._news.set()

    def add(self, folder: Path) -> None:
        self._news.set()

    def remove(self, folder: Path) -> None:
        self._announced.pop(folder, None)

    def wake(self) -> None:
        self._news.set()

    def begin_round(self) -> Collection[Path] | None:
        self._news.clear()
        looks_at_all, self._looks_at_all = self._looks_at_all, False
        announced, self._announced = self._announced, {}
        return None if looks_at_all else announced

    async def wait(self, *, watched: int) -> None:
        try:
            async with asyncio.timeout(LOOKS_EVERY_S if watched else None):
                await self._news.wait()
        except TimeoutError:
            self._looks_at_all = True

    def close(self) -> None:
        """Nothing is held."""
