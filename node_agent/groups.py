"""Blocking work on many things, done in groups in one thread.

Threads that make many small system calls fight with the event loop for the interpreter: a busy agent
with one of them does more than with six. So what comes while a group is being worked on makes the
next one; a single thing waits for nothing. Only where the work hangs (a file system that does not
answer) does another thread go on with what waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")

GROUP_SIZE = 8
STUCK_S = 0.5


class Groups(Generic[_T, _R]):
    """Calls `work` with one thing after the other, never in the event loop.

    What `work` raises goes to whoever asked for that thing.
    """

    def __init__(self, tasks: asyncio.TaskGroup, work: Callable[[_T], _R]) -> None:
        """Does its work as tasks of `tasks`; nothing is waiting yet."""
        self._tasks = tasks
        self._work = work
        self._waiting: deque[tuple[_T, asyncio.Future[_R]]] = deque()
        self._stuck_at_s = 0.0  # until then the thread at work, if any, is trusted to come back

    async def __call__(self, thing: _T) -> _R:
        """Has the work done on a thing, and returns what came of it; raises what `work` raised."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_R] = loop.create_future()
        self._waiting.append((thing, done))
        self._go()
        loop.call_later(STUCK_S, self._go)
        return await done

    def _go(self) -> None:
        """Begins to work, unless a thread is at it."""
        if self._waiting and time.monotonic() >= self._stuck_at_s:
            self._stuck_at_s = time.monotonic() + STUCK_S
            self._tasks.create_task(self._run())

    async def _run(self) -> None:
        while self._waiting:
            self._stuck_at_s = time.monotonic() + STUCK_S
            count = min(GROUP_SIZE, len(self._waiting))
            group = [self._waiting.popleft() for _ in range(count)]
            for (_, done), settle in zip(
                group, await asyncio.to_thread(self._all, group), strict=True
            ):
                if not done.done():  # somebody still waits
                    settle()
        self._stuck_at_s = 0.0

    def _all(self, group: list[tuple[_T, asyncio.Future[_R]]]) -> list[Callable[[], None]]:
        return [self._one(thing, done) for thing, done in group]

    def _one(self, thing: _T, done: asyncio.Future[_R]) -> Callable[[], None]:
        try:
            return partial(done.set_result, self._work(thing))
        except Exception as error:
            return partial(done.set_exception, error)
