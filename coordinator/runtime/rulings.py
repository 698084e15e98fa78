"""Why jobs were preempted, by the job that was."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.records import Considered, Ruling


class Rulings:
    """The published rulings, and who went by each."""

    def __init__(self) -> None:
        self._known: dict[str, Ruling] = {}
        self._of_job: dict[str, dict[str, None]] = {}  # ids, by who was preempted

    def put(self, ruling: Ruling) -> None:
        """One more."""
        self.drop(ruling.id)
        self._known[ruling.id] = ruling
        for one in _gone(ruling):
            self._of_job.setdefault(one.job_id, {})[ruling.id] = None

    def drop(self, id: str) -> None:
        """One is forgotten."""
        ruling = self._known.pop(id, None)
        for one in _gone(ruling) if ruling is not None else ():
            ids = self._of_job.get(one.job_id, {})
            ids.pop(id, None)
            if not ids:
                self._of_job.pop(one.job_id, None)

    def clear(self) -> None:
        """All are forgotten."""
        self._known.clear()
        self._of_job.clear()

    def of(self, job_id: str) -> list[Ruling]:
        """Those by which a job was preempted, newest first."""
        found = [self._known[id] for id in self._of_job.get(job_id, ())]
        return sorted(found, key=lambda ruling: ruling.at_ms, reverse=True)


def _gone(ruling: Ruling) -> Iterator[Considered]:
    return (one for one in ruling.considered if one.goes)
