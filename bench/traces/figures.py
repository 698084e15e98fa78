"""What a replay is judged by. Times in seconds; JCT is from submission to completion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.traces.replay import ZERO_MS, Tally
from bench.traces.workload import Workload


def figures(
    tally: Tally, workload: Workload, *, coverage_pct: float | None
) -> dict[str, float | int | None]:
    """The figures by name; `wait` is everything of the JCT in which the job made no progress."""
    done = [work for work in tally.work.values() if work.done_at_ms]
    jcts = sorted((w.done_at_ms - _submitted_ms(w.row.submit_ms)) / 1000 for w in done)
    waits = sorted(
        (w.done_at_ms - _submitted_ms(w.row.submit_ms) - w.row.duration_ms) / 1000 for w in done
    )
    first_ms = min((_submitted_ms(w.row.submit_ms) for w in done), default=0)
    span_ms = max((w.done_at_ms for w in done), default=0) - first_ms
    offered = max(1, workload.device_count * span_ms)
    return {
        "jobs": len(done),
        "mean_jct_s": _mean(jcts),
        "p50_jct_s": _percentile(jcts, 0.50),
        "p99_jct_s": _percentile(jcts, 0.99),
        "mean_wait_s": _mean(waits),
        "p99_wait_s": _percentile(waits, 0.99),
        "makespan_s": round(span_ms / 1000, 3),
        "allocation_ratio_pct": round(100 * tally.held_device_ms / offered, 2),
        "preemptions": tally.preemptions,
        "lost_device_s": round(tally.lost_device_ms / 1000, 3),
        "fairness": _fairness(tally),
        "eta_p90_coverage_pct": coverage_pct,
        "wall_s": round(tally.wall_s, 2),
        "decisions_per_s": round(tally.decisions / max(tally.wall_s, 1e-9), 1),
    }


def _submitted_ms(submit_ms: int) -> int:
    return submit_ms + ZERO_MS


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 1) if values else None


def _percentile(values: Sequence[float], part: float) -> float | None:
    """Of sorted values."""
    return round(values[int(len(values) * part)], 1) if values else None


def _fairness(tally: Tally) -> float | None:
    """Jain's index of the users' mean slow-down, 1 is equal; None where one user is named at most.

    The slow-down of a job is its JCT over its duration, which counts as ten seconds at least.
    """
    by_user: dict[str, list[float]] = defaultdict(list)
    for work in tally.work.values():
        if work.done_at_ms:
            jct_ms = work.done_at_ms - _submitted_ms(work.row.submit_ms)
            by_user[work.row.user].append(max(1.0, jct_ms / max(10_000, work.row.duration_ms)))
    if len(by_user) < 2:
        return None
    means = [sum(values) / len(values) for values in by_user.values()]
    squares = sum(mean * mean for mean in means)
    return round(sum(means) ** 2 / (len(means) * squares), 4)
