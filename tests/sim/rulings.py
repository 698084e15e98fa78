"""Who has to give devices up can be told why, by a record that was kept with the decision, and from which
it is decided again."""

from __future__ import annotations

from coordinator.core.decision import Changed, Event
from coordinator.core.records import Job, Record, Ruling, StopCause
from coordinator.core.replay import is_same
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, SimFailure

TOLD = (StopCause.PREEMPTED, StopCause.DRAINED)


class WhyIsKept(Checker):
    """Of every attempt that is preempted or drained it is kept why."""

    facts = (Job, Ruling)

    def __init__(self) -> None:
        self._stopped: dict[tuple[str, int], StopCause] = {}
        self._ruled: dict[tuple[str, int], list[str]] = {}  # by which rules

    def rewound(self, store: RecordsKept) -> None:
        self._stopped.clear()
        self._ruled.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Changed):
            record = event.record
            if isinstance(record, Ruling) and not is_same(record):
                text = f"what is kept of a decision does not lead to it again: {record}"
                raise SimFailure(text, record.job_id)
            self._take(event.record)

    def settled(self) -> None:
        for (job_id, attempt), cause in self._stopped.items():
            rules = self._ruled.get((job_id, attempt), [])
            if ("DRAIN" in rules) != (cause is StopCause.DRAINED) or not rules:
                text = f"attempt {attempt} of {job_id} was {cause}, and it is kept: {rules}"
                raise SimFailure(text, job_id)

    def _take(self, record: Record) -> None:
        if isinstance(record, Ruling):
            for one in record.considered:
                if one.goes:
                    self._ruled.setdefault((one.job_id, one.attempt), []).append(one.rule)
        elif isinstance(record, Job):
            attempt = record.attempt
            if attempt is not None and attempt.stop in TOLD:
                self._stopped[record.job_id, attempt.number] = attempt.stop
