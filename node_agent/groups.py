"""Blocking work on many things, done in groups in a thread.

What comes while a group is being worked on makes the next one, so that the busier the agent is,
the more of it shares one turn of a thread; a single thing waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Groups(Generic[_T]):
    """Calls `work` with one thing after the other, never in the event loop.

    `work` may raise OSError, which then goes to whoever asked for that thing.
    """

    def __init__(self, tasks: asyncio.TaskGroup, work: Callable[[_T], None]) -> None:
        """Does its work as tasks of `tasks`; nothing is waiting yet."""
        self._tasks = tasks
        self._work = work
        self._waiting: list[tuple[_T, asyncio.Future[None]]] = []
        self._busy = False

    async def __call__(self, thing: _T) -> None:
        """Has the work done on a thing; returns once it is. Raises OSError as `work` did."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((thing, done))
        if not self._busy:
            self._busy = True
            self._tasks.create_task(self._run())
        await done

    async def _run(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            outcomes = await asyncio.to_thread(self._all, [thing for thing, _ in group])
            for (_, done), error in zip(group, outcomes, strict=True):
                if done.done():
                    continue  # nobody waits any more
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)
        self._busy = False

    def _all(self, things: list[_T]) -> list[OSError | None]:
        return [self._one(thing) for thing in things]

    def _one(self, thing: _T) -> OSError | None:
        try:
            self._work(thing)
        except OSError as error:
            return error
        return None
