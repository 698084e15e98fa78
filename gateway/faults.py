"""What is wrong with a request, field by field. The list is bounded, so that a hostile body cannot
make a large answer out of itself."""

from __future__ import annotations

MAX_FAULTS = 100
MAX_NAME = 200


class TooManyFaults(Exception):
    """The list is full; reading the rest of the request is of no use."""


class Faults:
    """Faults found so far, each the path of a field and a sentence about it."""

    __slots__ = ("found", "most")

    def __init__(self, most: int = MAX_FAULTS) -> None:
        self.found: list[tuple[str, str]] = []
        self.most = most

    def add(self, field: str, message: str) -> None:
        """Adds a fault.

        Raises:
            TooManyFaults: this one filled the list.
        """
        self.found.append((shorten(field), message))
        if len(self.found) >= self.most:
            raise TooManyFaults


class Place:
    """A message inside a request, for naming its fields in faults."""

    __slots__ = ("depth", "faults", "prefix")

    def __init__(self, faults: Faults, prefix: str = "", *, depth: int = 0) -> None:
        """The message whose fields have paths that begin with `prefix`, such as `labels.`."""
        self.faults, self.prefix, self.depth = faults, prefix, depth

    def inside(self, step: str) -> Place:
        """The place of the message that the field `step` holds."""
        return Place(self.faults, f"{self.prefix}{step}.", depth=self.depth + 1)

    def fault(self, field: str, message: str) -> None:
        """Adds a fault of a field."""
        self.faults.add(self.prefix + field, message)

    def fault_here(self, message: str) -> None:
        """Adds a fault of the message itself; the outermost one is the body."""
        self.faults.add(self.prefix.rstrip(".") or "body", message)


def shorten(text: str) -> str:
    """Cuts text that a caller chose, and drops what cannot be printed or encoded."""
    kept = text if len(text) <= MAX_NAME else text[:MAX_NAME] + "…"
    if kept.isprintable():
        return kept
    return "".join(letter if letter.isprintable() else "�" for letter in kept)
