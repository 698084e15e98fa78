"""What to do about a failure: one table, by its category."""

from __future__ import annotations

from scaimind.v1 import job_pb2

_Error = job_pb2.JobError
TABLE = {
    _Error.USER_CODE: "The program itself failed: read its last lines and its log, mend it, and retry the job.",
    _Error.GPU_OOM: "Use smaller batches or shorter sequences, trade compute for memory (checkpointing),"
    " or ask for devices with more memory (gpu_memory_gb); then retry the job.",
    _Error.HOST_OOM: "Ask for more memory (memory_gb, shm_gb), or load data with fewer processes (num_workers);"
    " then retry the job.",
    _Error.GPU_HARDWARE: "A device failed and not the job: where its node finds that too, the job is tried"
    " elsewhere and pays no retry; an admin should look at the node.",
    _Error.NETWORK: "Ranks lost each other: see whether another one ended first, then what the library says"
    " (NCCL_DEBUG=INFO). With NETWORK in retry_on such failures use up no retries.",
    _Error.STORAGE: "A disk or store failed, refused or is full: make room or name another place; then retry.",
    _Error.IMAGE: "The image could not be had: check its name, and that nodes may fetch it; then retry.",
    _Error.PREEMPTED: "It made room for another job: retry it, or let it queue again by itself"
    " (requeue_on_preemption).",
    _Error.DRAINED: "Its node was drained: it goes on elsewhere by itself, or may be retried.",
    _Error.NODE_LOST: "Its node was lost or has restarted: it goes on by itself, or may be retried.",
    _Error.TIME_LIMIT: "It needs more time: retry it with a higher max_runtime_seconds, from its checkpoint.",
    _Error.HANG: "It stood still: see what its ranks waited for (their stacks, NCCL_DEBUG=INFO), and whether"
    " hang_after_seconds is long enough for its longest pauses; then retry it from its checkpoint.",
    _Error.CONFIG: "It cannot be started as it is: change what the message names, and submit it anew.",
}


def advice_on(category: job_pb2.JobError.Category.ValueType) -> str:
    """What to do, for people; "" where nobody knows."""
    return TABLE.get(category, "")
