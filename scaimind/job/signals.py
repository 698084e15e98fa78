"""The two requests that reach a training process: SIGTERM asks to stop, SIGUSR1 asks to save.

Handlers only set plain attributes. They take no lock and write nothing, because they run between
any two instructions of the main thread.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any] | int | None


class Requests:
    """What was asked of this process so far."""

    def __init__(self) -> None:
        self.stop = False
        # Counted, not a flag: a request that comes while a checkpoint is being written asks for
        # a newer state than that one holds, and must not be cleared by it.
        self.saves_asked = 0
        self.saves_served = 0
        self._previous: dict[int, _Handler] = {}

    def install(self) -> None:
        """Take over both signals, calling whatever handled them before as well.

        Only the main thread may set handlers; elsewhere this does nothing and no request is seen.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._previous[number] = signal.getsignal(number)
            signal.signal(number, self._handle)
        os.register_at_fork(after_in_child=self._release)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.stop = True
        else:
            self.saves_asked += 1
        previous = self._previous.get(number)
        if callable(previous):
            previous(number, frame)

    def _release(self) -> None:
        """Give the signals back in a forked child.

        A data loader's children must die of SIGTERM as ever (multiprocessing stops them so), and
        must not die of a SIGUSR1 that was meant for their parent.
        """
        for number, previous in self._previous.items():
            if signal.getsignal(number) != self._handle:
                continue
            if number == signal.SIGUSR1 and previous in (signal.SIG_DFL, None):
                previous = signal.SIG_IGN
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
