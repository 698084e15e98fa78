"""When a training's next checkpoint comes, by those that it has proven.

Theory of operation. Many trainings do not hear an ask: they save every so many steps, and nothing else makes
them. What such a one has done since its newest checkpoint is lost if it is stopped now, and kept if its
next one may still come. So a preemption, which asks at once all the same (who hears it is sooner done),
waits beyond the grace for a checkpoint that is near: less is left until then than has passed since the
newest one. What a wait in vain adds to what is lost is less than twice that, and bounded by a setting.

The interval is the middle one of the newest that are known, of an attempt each (of two the longer one): one
slow proof, or a checkpoint that was asked for in between, does not count. Before there are two checkpoints
it is the time from the start to the first one. Checkpoints that are kept no more make it longer, never
shorter, and with it fewer checkpoints near. Times are of proofs, as the node's clock had them; with a clock
that is wrong none is near.
"""

from __future__ import annotations

from itertools import pairwise

from coordinator.core.records import Job, JobStatus, StopCause
from coordinator.core.settings import CoreSettings

SAVES = (JobStatus.TRAINING, JobStatus.CHECKPOINTING)  # in which checkpoints are proven
ASKED = (StopCause.PREEMPTED, StopCause.DRAINED)  # stops that ask for a checkpoint first
SAVE_MS = 60_000  # what a training that hears an ask loses at most: it will prove another
NEWEST = 3  # intervals
MARGIN = 4  # one may be late by one part in so many of an interval


def awaited_ms(job: Job, *, now_ms: int, settings: CoreSettings) -> int:
    """Until when the next checkpoint of an attempt is worth waiting for; 0 where none is near, or none
    is needed as the grace is longer.

    There is none where the training comes no further, or meets its time limit before.
    """
    attempt, most_ms = job.attempt, settings.near_checkpoint_ms
    assert attempt is not None
    if job.status not in SAVES or attempt.silent_since_ms or not most_ms:
        return 0
    interval_ms = interval_of(job)
    own = (x.created_at_ms for x in job.checkpoints if x.attempt == attempt.number)
    newest_ms = max(own, default=attempt.started_at_ms)
    next_ms = newest_ms + interval_ms
    late_ms = next_ms + interval_ms // MARGIN
    limit_ms = job.policy.max_runtime_ms
    if limit_ms and late_ms > attempt.started_at_ms + limit_ms:
        return 0
    is_near = next_ms - now_ms < min(now_ms - newest_ms, most_ms) and now_ms < late_ms
    until_ms = min(late_ms, now_ms + most_ms)
    return until_ms if is_near and until_ms > now_ms + job.policy.grace_ms else 0


def hears(job: Job) -> bool:
    """Whether a training answers when it is asked, as far as is known: no attempt lost what that had kept."""
    answer_us = SAVE_MS * job.demand.size  # milliseconds by thousandths
    return not any(x.cause in ASKED and x.redone_us > answer_us for x in job.losses)


def interval_of(job: Job) -> int:
    """Milliseconds between two checkpoints; 0 where nothing is known of them."""
    known = sorted(job.checkpoints, key=lambda x: (x.attempt, x.created_at_ms))
    found = [
        b.created_at_ms - a.created_at_ms for a, b in pairwise(known) if a.attempt == b.attempt
    ]
    attempt = job.attempt
    if not found and known and attempt is not None and known[-1].attempt == attempt.number:
        found = [known[-1].created_at_ms - attempt.started_at_ms]
    newest = sorted(found[-NEWEST:])
    return newest[len(newest) // 2] if newest else 0
