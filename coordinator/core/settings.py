"""What may be tuned about the core. Times in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.core.health import HealthRules
from coordinator.core.retry import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """Bounds and patience of the core."""

    unreachable_after_ms: int = 20_000  # silence until a node is UNREACHABLE
    recovery_grace_ms: int = 30_000  # on top, after a leader has started or was held up
    replace_after_ms: int = 60_000  # silence of a node until what it fences may run elsewhere
    request_ttl_ms: int = 24 * 3_600_000
    max_keys: int = 100_000  # beyond, no node joins
    max_live_jobs: int = 200_000
    max_requests: int = 1_000_000  # remembered at once; beyond it the oldest is forgotten early
    max_checkpoints: int = 1_000  # per job; beyond it the oldest leaves the record
    max_placements_per_pass: int = 1_000  # jobs or groups looked at; the rest waits for the next
    max_deadlines_per_tick: int = 1_000
    max_histories: int = 20_000  # kins whose running times are known; beyond it the stalest goes
    min_run_ms: int = 300_000  # of an attempt until it may be preempted; doubles with each today
    near_checkpoint_ms: int = (
        600_000  # that a preemption waits for one; 0: no longer than the grace
    )
    near_data_ms: int = 600_000  # that a job waits for a node that holds its data; 0: not at all
    aging_ms: int = 7 * 86_400_000  # of waiting, for which a job is raised by one priority
    usage_half_life_ms: int = 7 * 86_400_000  # FAIR forgets what was used by half in this time
    max_queues: int = 10_000
    max_rolling_drains: int = 200  # with those that have ended; beyond it the oldest of these goes
    max_rulings: int = 10_000  # why somebody was preempted; beyond it the oldest goes
    ruling_ttl_ms: int = 30 * 86_400_000
    max_usages: int = 20_000  # accounts whose use is noted; beyond it the stalest goes
    max_preemptions_per_day: int = 12  # of one job, by the scheduler
    backoff: Backoff = field(default_factory=Backoff)
    health: HealthRules = field(default_factory=HealthRules)

    def __post_init__(self) -> None:
        if self.replace_after_ms <= self.unreachable_after_ms:
            raise ValueError("replace_after_ms must be above unreachable_after_ms")

    @property
    def stall_ms(self) -> int:
        """What the deciding loop may be late by; beyond it nobody could have been heard."""
        return self.unreachable_after_ms // 4

    @property
    def sight_ms(self) -> int:
        """How long all nodes of a training have been in contact before it is judged to hang."""
        return 3 * self.unreachable_after_ms

    @property
    def fence_after_ms(self) -> int:
        """Silence after which an agent stops by itself what may run elsewhere: SIGTERM then, SIGKILL
        a third of that time later.

        The agent counts from sending the call that was answered last, the coordinator from receiving
        it. With f for this time and d for the error of either clock, nothing runs twice while
        4/3 f (1 + d) < 2 f (1 - d), which holds for d below 20 %.
        """
        return self.replace_after_ms // 2
