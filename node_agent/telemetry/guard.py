"""Calls that may hang: made in a thread of their own, waited for with a limit.

A driver's call can hang for ever, and a thread in it cannot be stopped. So there is one thread for
each thing that may hang, never a second one: while a call hangs, further ones fail at once, and
when it returns after all, the guard works again.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Hung(Exception):
    """The call, or one before it, does not return."""


class Pending(Generic[_T]):
    """A call that was begun."""

    def __init__(self, future: Future[_T]) -> None:
        self._future = future

    def result(self, timeout_s: float) -> _T:
        """What the call returned or raised; Hung if it does neither in time."""
        try:
            return self._future.result(max(0.0, timeout_s))
        except TimeoutError:
            # A call's own TimeoutError counts as a hang as well.
            raise Hung(f"no answer within {timeout_s:.1f} s") from None


class Guard:
    """Makes calls one after the other in one daemon thread, which starts with the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._busy = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, call: Callable[[], _T]) -> Pending[_T]:
        """Begins a call; Hung while an earlier one has not returned."""
        if not self._busy.acquire(blocking=False):
            raise Hung("an earlier call has not returned")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        future: Future[_T] = Future()

        def work() -> None:
            try:
                result = call()
            except BaseException as error:
                self._busy.release()
                future.set_exception(error)
            else:
                self._busy.release()
                future.set_result(result)

        self._calls.put(work)
        return Pending(future)

    def call(self, call: Callable[[], _T], *, timeout_s: float) -> _T:
        """Makes a call; Hung if it does not return in time."""
        return self.begin(call).result(timeout_s)

    def close(self) -> None:
        """Ends the thread once it is free."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
