"""Waiting for conditions, always with a bound; nothing here waits for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_S = 0.02


def until(
    condition: Callable[[], T | None], what: str | Callable[[], str], *, within_s: float = 30.0
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
