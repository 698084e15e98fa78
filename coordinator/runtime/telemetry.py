"""The newest telemetry of nodes: a bounded ring in memory, shown live, never stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

RING_LENGTH = 120


@dataclass(frozen=True, slots=True)
class Sample:
    """What a node measured at one time; serialised public messages, by device id."""

    at_ms: int
    host: bytes
    devices: Mapping[str, bytes]


class Telemetry:
    """Samples by node, newest last."""

    def __init__(self) -> None:
        self._rings: dict[str, deque[Sample]] = {}

    def put(self, node_id: str, sample: Sample) -> None:
        """Keeps a sample; the oldest one goes when the ring is full."""
        self._rings.setdefault(node_id, deque(maxlen=RING_LENGTH)).append(sample)

    def newest(self, node_id: str) -> Sample | None:
        """The newest sample of a node."""
        ring = self._rings.get(node_id)
        return ring[-1] if ring else None

    def ring(self, node_id: str) -> tuple[Sample, ...]:
        """All kept samples of a node, oldest first."""
        return tuple(self._rings.get(node_id, ()))
