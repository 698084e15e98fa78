"""Waiting for conditions, always with a bound; nothing here waits for time to pass.

A bound is there to end a test that has failed: it is far beyond what a busy machine needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.02
WITHIN_S = 90.0


def until(
    condition: Callable[[], T | None], what: str | Callable[[], str], *, within_s: float = WITHIN_S
) -> T:
    """The first true answer of `condition`.

    Raises:
        AssertionError: there was none in time; says `what` was waited for.
    """
    deadline = time.monotonic() + within_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {within_s:g} s: {text}")
        time.sleep(LOOK_S)
