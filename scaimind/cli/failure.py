"""A failure as people read it: what failed first, its last lines, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loaded by those who have a job in their hands
    from scaimind.v1 import job_pb2


def rows(job: job_pb2.Job) -> list[tuple[str, str]]:
    """Lines of a job's table; those without a value are empty."""
    if not job.HasField("error"):
        return []
    fault = job.error
    lines = [("last lines" if n == 0 else "", line) for n, line in enumerate(fault.last_lines)]
    return [("failed first", _first(fault)), *lines, ("next", fault.advice)]


def _first(fault: job_pb2.JobError) -> str:
    if not fault.HasField("first_failing_rank"):
        return f"on {fault.node_id}" if fault.node_id else ""
    end = f", signal {fault.signal}" if fault.HasField("signal") else ""
    where = f" on {fault.node_id}" if fault.node_id else ""
    return f"rank {fault.first_failing_rank}{where}{end}"
