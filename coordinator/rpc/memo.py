"""What was found out about some bytes, for as long as there is room for it."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")

BYTES_MAX = 4 * 1024 * 1024
VALUE_BYTES = 2048  # that are taken for a value


class Memo(Generic[V]):
    """Values by bytes; those that were put in first go first."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._values: dict[bytes, V] = {}
        self._bytes = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._values

    def get(self, key: bytes) -> V | None:
        """The value; None where it is not known, or no more."""
        return self._values.get(key)

    def put(self, key: bytes, value: V) -> None:
        """Remembers a value that is not known."""
        self._values[key] = value
        self._bytes += len(key) + VALUE_BYTES
        while self._bytes > self._bytes_max:
            oldest = next(iter(self._values))
            del self._values[oldest]
            self._bytes -= len(oldest) + VALUE_BYTES
