"""What may be tuned about the core. Times in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.core.retry import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """Bounds and patience of the core."""

    unreachable_after_ms: int = 20_000  # silence until a node is UNREACHABLE
    recovery_grace_ms: int = 30_000  # on top, after a leader has started
    request_ttl_ms: int = 24 * 3_600_000
    max_live_jobs: int = 200_000
    max_requests: int = 1_000_000  # remembered at once; beyond it the oldest is forgotten early
    max_checkpoints: int = 1_000  # per job; beyond it the oldest leaves the record
    max_placements_per_pass: int = 1_000  # jobs or groups looked at; the rest waits for the next
    max_deadlines_per_tick: int = 1_000
    backoff: Backoff = field(default_factory=Backoff)
