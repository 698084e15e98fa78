"""One transfer: an order on standard input, dots while it moves, the answer on standard output.

It ends with the agent that has started it: its standard input ends then.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import msgspec

from node_agent.uploads import moves
from node_agent.uploads.orders import Answer, Download, Failed, Order, Upload
from node_agent.uploads.store import open_store

BEAT_S = 1.0
NICENESS = 10  # nobody waits for what is uploaded


class _Pulse:
    """Says on a descriptor that something moves, once in a while."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._next_s = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            if time.monotonic() >= self._next_s:
                self._next_s = time.monotonic() + BEAT_S
                os.write(self._descriptor, b".\n")


def main() -> None:
    """Does what it is told, and leaves at once: a store's library may have threads."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_end_with_the_agent, daemon=True).start()
    os.write(answers, msgspec.json.encode(_answer(order, _Pulse(answers))) + b"\n")
    os._exit(0)


def _answer(order: Order, beat: moves.Beat) -> Answer:
    try:
        if not isinstance(order, Download):
            os.nice(NICENESS)
        store, path = open_store(order.source if isinstance(order, Download) else order.target)
        if isinstance(order, Upload):
            moves.upload(order, store, path, beat=beat)
        elif isinstance(order, Download):
            moves.download(order, store, path, beat=beat)
        else:
            moves.remove(order, store, path, beat=beat)
    except Failed as failed:
        return Answer(str(failed), failed.lasting)
    return Answer()


def _end_with_the_agent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
