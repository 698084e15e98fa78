"""The process that checks: a question on stdin, a finding on each line of stdout as soon as it is known.

It ends itself when its time is over, so that it outlives nobody who started it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

import msgspec

from coordinator.data.check import check
from coordinator.data.terms import NOT_CHECKED, Finding, Found, Question, Source

MEMORY_BYTES = 4 << 30
CPU_S = 60
GRACE_S = 2
NICE = 10  # decisions and dispatch come first


def main() -> int:
    """Checks; answers the exit status."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    _limit(question.rules.all_s)
    pool = ThreadPoolExecutor(question.rules.parallel)
    waiting = {
        pool.submit(_checked, source, question): index
        for index, source in enumerate(question.sources)
    }
    for done in as_completed(waiting):
        found = Found(waiting[done], done.result())
        sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _checked(source: Source, question: Question) -> Finding:
    try:
        return check(source, question)
    except Exception:  # one bad source must not take the others' findings with it
        return Finding(error=NOT_CHECKED)


def _limit(all_s: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, all_s + GRACE_S)  # SIGALRM ends the process
    for kind, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S)):
        with suppress(ValueError, OSError):  # an outer limit may be lower, or forbid it
            resource.setrlimit(kind, (most, most))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold tokens
    with suppress(OSError):
        os.nice(NICE)


if __name__ == "__main__":
    status = main()
    os._exit(status)  # a thread that waits for a dead server is not waited for
