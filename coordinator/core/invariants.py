"""Facts that must hold. A coordinator that doubts its state must not hand out GPUs."""

from __future__ import annotations


class InvariantViolation(Exception):
    """The state contradicts itself; whoever drives the core must stop."""


def ensure(fact: bool, text: str, *about: object) -> None:
    """Raises InvariantViolation with `text` and what it is about, unless `fact` is true.

    Unlike `assert` it is never switched off.
    """
    if not fact:
        raise InvariantViolation(": ".join([text, ", ".join(map(str, about))] if about else [text]))
