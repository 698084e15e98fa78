"""How often a training reports progress, and when it has been silent for too long.

Theory of operation. Rank 0 reports steps; the longest time between two of them, as far as it has come, is
its cadence. It is silent for too long after ten times that, and never before five minutes; or after the
limit that its job gives, which counts from its start. Without a limit nothing is said of a training that
has not shown its cadence yet.

Silence is what was seen: looks come every second, and a longer time between two of them (the agent was
not there, the machine slept, a clock was set) counts as little as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

REPORTS_LEAST = 6
TIMES = 10
SILENCE_LEAST_MS = 300_000
LOOK_MOST_MS = 5_000


@dataclass(frozen=True, slots=True)
class Cadence:
    """What is known of one training. `progress_ms` is when it reported last, or began; 0 is not yet."""

    reports: int = 0
    longest_ms: int = 0  # silence before one of them, by what was seen
    silent_ms: int = 0  # since the last report
    progress_ms: int = 0
    looked_ms: int = 0

    def report(self, now_ms: int) -> Cadence:
        """It has reported progress now."""
        seen = self.look(now_ms)
        return replace(
            seen,
            reports=seen.reports + 1,
            longest_ms=max(seen.longest_ms, seen.silent_ms),
            silent_ms=0,
            progress_ms=now_ms,
        )

    def look(self, now_ms: int) -> Cadence:
        """It runs, and time has passed."""
        passed_ms = max(0, min(LOOK_MOST_MS, now_ms - self.looked_ms)) if self.looked_ms else 0
        return replace(
            self,
            silent_ms=self.silent_ms + passed_ms,
            progress_ms=self.progress_ms or now_ms,
            looked_ms=now_ms,
        )

    def resumed(self) -> Cadence:
        """The same for an agent that has just started: it has not looked yet."""
        return replace(self, silent_ms=0, looked_ms=0)

    def silent_since_ms(self, limit_ms: int) -> int:
        """When the silence began that is too long by now; 0 for none. `limit_ms` 0 is as learnt."""
        if not limit_ms and self.reports < REPORTS_LEAST:
            return 0
        most_ms = limit_ms or max(SILENCE_LEAST_MS, TIMES * self.longest_ms)
        return self.progress_ms if self.silent_ms >= most_ms else 0
