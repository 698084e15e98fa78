"""An event loop for asyncio in virtual time: what is written with tasks runs in the world as it is.

One `Tasks` is one life of one process. Its clock is the machine's; what it schedules happens when the
process's own `later` says so, and never once the process is dead. As after kill -9 nothing is unwound:
tasks of the dead are kept, as they stood, until the world is over.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from typing import Any, cast

from tests.sim.clock import LocalClock

Later = Callable[[int, Callable[[], None]], None]
KEPT = 64  # tasks, before those that are done are let go
MOST_ROUNDS = 5


class Handle:
    """Something to be called in its context: asyncio's own, without what only its debugging asks for."""

    __slots__ = ("_args", "_callback", "_context", "_loop", "_when", "is_cancelled")

    def __init__(
        self, loop: Tasks, callback: Any, args: Any, *, context: Context | None, when: float = 0.0
    ) -> None:
        self.is_cancelled = False
        self._loop = loop
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._when = when

    def cancel(self) -> None:
        """It is dropped when its time comes."""
        self.is_cancelled = True
        self._callback = self._args = None

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        """Calls it; a failure is its loop's."""
        try:
            self._context.run(self._callback, *self._args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler({"exception": error})


class Tasks:
    """What runs in one life of one process. `failed` is told what ends a task that nobody awaits."""

    def __init__(
        self,
        later: Later,
        *,
        time_ms: Callable[[], float],
        world_ms: Callable[[float], int],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._loop = cast(asyncio.AbstractEventLoop, self)  # as much of one as tasks ask for
        self._later = later
        self._time_ms = time_ms
        self._world_ms = world_ms
        self._failed = failed
        self._ready: deque[Handle] = deque()
        self._is_due = False
        self._tasks: list[asyncio.Task[Any]] = []
        self._keep = KEPT

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something that nobody waits for; a failure of it is a failure of the world."""
        task = self.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def bury(self) -> None:
        """Ends what still stands, when the world is over and nothing of it matters."""
        self._later = lambda delay_ms, act: None
        self._failed = lambda error: None
        for _ in range(MOST_ROUNDS):
            left = [task for task in self._tasks if not task.done()]
            for task in left:
                task.cancel()
            self._run()
            if not left:
                break
        self._tasks.clear()

    # what asyncio asks of a loop

    def time(self) -> float:
        return self._time_ms() / 1000

    def get_debug(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._loop)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._loop, name="", context=context)
        self._tasks.append(task)
        if len(self._tasks) > self._keep:
            self._tasks = [one for one in self._tasks if not one.done()]
            self._keep = max(KEPT, 2 * len(self._tasks))
        return task

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Handle:
        handle = Handle(self, callback, args, context=context)
        self._ready.append(handle)
        if not self._is_due:
            self._is_due = True
            self._later(0, self._run)
        return handle

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(self, callback, args, context=context, when=when)
        self._set(handle, when - self.time())
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Handle:
        now = self.time()
        handle = Handle(self, callback, args, context=context, when=now + delay)
        self._set(handle, now + delay - now)
        return handle

    def _set(self, handle: Handle, delay_s: float) -> None:
        delay_ms = self._world_ms(math.ceil(delay_s * 1000))
        self._later(max(1, delay_ms), partial(self._due, handle))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self._failed(error)

    def _due(self, handle: Handle) -> None:
        if not handle.is_cancelled:
            self._ready.append(handle)
            self._run()

    def _run(self) -> None:
        """Everything that is ready, and what that makes ready."""
        self._is_due = True  # whatever becomes ready meanwhile is done here
        events._set_running_loop(self._loop)
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.is_cancelled:
                    handle.run()
        finally:
            events._set_running_loop(None)
            self._is_due = False

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)


class Burial:
    """Makes the tasks of every life of every process, and ends them all when the world is over."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self._all: list[Tasks] = []

    def tasks(self, later: Later, clock: LocalClock) -> Tasks:
        """The tasks of one more life, on a machine with this clock."""
        tasks = Tasks(
            later,
            time_ms=clock.elapsed_ms,
            world_ms=clock.world_ms,
            failed=self.failures.append,
        )
        self._all.append(tasks)
        return tasks

    def check(self) -> None:
        """Raises what has ended a task that was not to end."""
        if self.failures:
            raise self.failures[0]

    def close(self) -> None:
        """The world is over."""
        for tasks in self._all:
            tasks.bury()
        self._all.clear()
