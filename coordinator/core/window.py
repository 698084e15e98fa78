"""When a node is out for maintenance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A drain that begins by itself, and ends by itself where it has an end. Desired."""

    from_ms: int
    until_ms: int = 0  # the node is enabled then; 0: somebody has to
    force: bool = False  # as of Drain
    move: bool = False
    reason: str = ""
    force_after_ms: int = 0  # from its begin until what runs there is stopped; 0 is never
    actor: str = ""

    def is_on(self, drained_ms: int) -> bool:
        """Whether it has begun, on a node that is drained since then; 0 is a node that is not."""
        return drained_ms >= self.from_ms
