"""Bugs to plant into what is asked for beside single jobs, into limits, into what keeps a job on one image,
and into who waits for its data."""

from __future__ import annotations

from tests.sim.planting import Edit

BUGS: dict[str, tuple[Edit, ...]] = {
    "an atomic batch is accepted in part": (
        Edit(
            "coordinator.core.batch",
            "_refused_together(turn, command, settings=settings) if command.atomic else None",
            "None",
        ),
    ),
    "what a job of a batch is asked under is forgotten": (
        Edit("coordinator.core.batch", "    if command.caller.request_id:", "    if False:"),
    ),
    "a batch that is asked for again is told nothing of its jobs": (
        Edit("coordinator.core.requests", "        outcomes=known.outcomes,\n", ""),
    ),
    "a request id answers whatever it comes with": (
        Edit("coordinator.core.requests", "if known.digest != caller.digest:", "if False:"),
    ),
    "a repeated answer leaves the queue out": (
        Edit("coordinator.core.requests", "        queue=known.queue,\n", ""),
    ),
    "a key that is asked for twice is made twice": (
        Edit(
            "coordinator.core.keys",
            "    if known is not None:\n        return known\n    key = turn",
            "    key = turn",
        ),
    ),
    "a key is told again with the secret of another": (
        Edit("coordinator.core.requests", "        salt=known.salt,\n", ""),
    ),
    "whoever joins takes a node's name": (
        Edit("coordinator.core.join", "    if known is not None:", "    if False:"),
    ),
    "a removed node may still come in": (
        Edit(
            "coordinator.core.loss",
            "    turn.retire(Kind.NODE, node.node_id)\n    expel(turn, node.node_id)",
            "    turn.retire(Kind.NODE, node.node_id)",
        ),
    ),
    "a queue is removed from above others": (
        Edit(
            "coordinator.core.queues",
            "if below is not None and command.name != ROOT:",
            "if False:",
        ),
    ),
    "a closed queue takes jobs": (
        Edit(
            "coordinator.core.queues",
            "if queue is not None and not queue.accepts:",
            "if False:",
        ),
    ),
    "a job like others that wait is let in over a limit": (
        Edit(
            "coordinator.core.queues",
            "like is None or bool(like.pending) or shares.limit_of(job) is not None",
            "like is None",
        ),
    ),
    "who finds no room waits for a limit that lets it": (
        Edit(
            "coordinator.core.schedule",
            "    for job_id in [*islice(group.pending, MOST_LET_IN)]:",
            "    for job_id in ():",
        ),
        Edit("coordinator.core.schedule", "    if not group.pending:  #", "    if True:  #"),
    ),
    "the image of a job is what a node said last": (
        Edit("coordinator.core.image", "    if not job.image_digest:", "    if True:"),
    ),
    "a gang runs in different images": (
        Edit(
            "coordinator.core.image",
            "elif attempt is not None and attempt.stop is None and not attempt.ended_at_ms:",
            "elif False:",
        ),
    ),
    "what ranks of different images came to together counts": (
        Edit(
            "coordinator.core.retry",
            "for lease in leases) or _had_other_images(job):",
            "for lease in leases):",
        ),
    ),
    "a child runs in the image of the day": (
        Edit(
            "coordinator.core.child",
            'image_digest=parent.image_digest if command.keeps_image else "",',
            "",
        ),
    ),
    "data are awaited for as long as to fetch them takes": (
        Edit(
            "coordinator.core.delay",
            "    until_ms = turn.now_ms + min(saved_ms, most_ms)",
            "    until_ms = turn.now_ms + saved_ms",
        ),
    ),
    "nobody gives up waiting for its data": (
        Edit("coordinator.core.state", "due_ms = job.awaits.until_ms", "due_ms = 0"),
    ),
    "who waits for its data takes what others hold": (
        Edit(
            "coordinator.core.preempt",
            "    elif not any(is_held(state, share, demand=job.demand) for share in shares):",
            "    else:",
        ),
    ),
    "who runs is expected still": (
        Edit(
            "coordinator.runtime.view",
            "job.status is not JobStatus.QUEUED or not job.wants",
            "not job.wants",
        ),
    ),
}
