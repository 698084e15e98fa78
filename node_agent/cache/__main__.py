"""The process that fetches: an order on stdin, what becomes of it on stdout.

It ends with whoever started it: then nobody is left who would take what it fetches.
"""

from __future__ import annotations

import os
import queue
import re
import resource
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from node_agent.cache.fetch import Fetch, TooMuch, key_of
from node_agent.cache.names import BadName
from node_agent.cache.sources import LocalFile, source_of
from node_agent.cache.terms import GIB, Begun, Failed, Fetched, Go, Grown, Looked, Order, Told
from node_agent.cache.unpack import BadBundle
from scaimind.service.reach import Closed, Unreachable

MEMORY_BYTES = 8 * GIB
TELL_S = 0.5
NICE = 5  # training comes first
LINE_BYTES_MAX = 1 << 20
_NAMED = re.compile(r"^https?://.*#sha256=([0-9a-f]{64})$")


def main() -> int:
    """Looks, and fetches where it is told to; answers the exit status."""
    _limit()
    order = msgspec.json.decode(sys.stdin.buffer.readline(LINE_BYTES_MAX), type=Order)
    told: queue.SimpleQueue[Go] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(told,), daemon=True).start()
    try:
        found: Told = _fetched(order, told)
    except (Closed, BadBundle, BadName) as fault:
        found = Failed(str(fault), is_final=True)
    except Unreachable as fault:
        found = Failed(str(fault))
    except TooMuch:
        found = Failed("there is more of it than the node's data cache has room for")
    except MemoryError:
        found = Failed("there is too much of it to be listed")
    except OSError as error:
        found = Failed(f"the node's data cache: {error.strerror or 'nothing answers there'}")
    _tell(found)
    return 0


def _fetched(order: Order, told: queue.SimpleQueue[Go]) -> Fetched:
    named = _NAMED.search(order.uri)
    source = source_of(order)
    sizes = [one.size_bytes for one in source.files]
    total = 0 if None in sizes else sum(one or 0 for one in sizes)
    key = key_of(order.uri, source, bundle=order.bundle)
    _tell(Looked(key, total))
    go = told.get()
    folder = Path(order.partials, key)
    begun = None if isinstance(source, LocalFile) else partial(_tell, Begun())
    fetch = Fetch(source, folder, most_bytes=go.most_bytes, grown=_Teller().grown, begun=begun)
    return fetch.run(bundle=order.bundle, sha256=named[1] if named else "")


class _Teller:
    """Tells of growth now and then, also of the last before nothing comes any more."""

    def __init__(self) -> None:
        self._grown = Grown(0)
        threading.Thread(target=self._run, daemon=True).start()

    def grown(self, grown: Grown) -> None:
        self._grown = grown

    def _run(self) -> None:
        told = self._grown
        while True:
            time.sleep(TELL_S)
            if told != self._grown:
                told = self._grown
                _tell(told)


def _listen(told: queue.SimpleQueue[Go]) -> None:
    """Passes on what the agent says, and ends the process with it, or where it wants no more."""
    while line := sys.stdin.buffer.readline(LINE_BYTES_MAX):
        told.put(msgspec.json.decode(line, type=Go))
    os._exit(1)


def _tell(told: Told) -> None:
    os.write(sys.stdout.fileno(), msgspec.json.encode(told) + b"\n")  # whole, from any thread


def _limit() -> None:
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold tokens
    with suppress(OSError):
        os.nice(NICE)


if __name__ == "__main__":
    status = main()
    os._exit(status)  # a thread that waits for a dead server is not waited for
