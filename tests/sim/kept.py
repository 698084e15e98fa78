"""What a store holds: the upserts and deletions of committed batches, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.core import Core, CoreSettings
from coordinator.core.decision import Changed, Event, Heard
from coordinator.core.records import Document, Job, Kind, Record


class RecordsKept:
    """Live records by kind and id, and the jobs that became history."""

    def __init__(self) -> None:
        self.live: dict[tuple[Kind, str], Record] = {}
        self.history: dict[str, Job] = {}

    def commit(self, events: Iterable[Event]) -> None:
        """Makes the events of a batch durable."""
        for event in events:
            if isinstance(event, Heard):
                continue
            if isinstance(event, Changed):
                if not isinstance(event.record, Document):
                    self.live[event.record.kind, event.record.id] = event.record
                continue
            record = self.live.pop((event.kind, event.id))
            if isinstance(record, Job):
                self.history[record.job_id] = record

    def reload(self, settings: CoreSettings | None = None) -> Core:
        """Another core that has loaded what is stored, in an order that means nothing."""
        core = Core(settings)
        core.load(self.live[key] for key in sorted(self.live, key=lambda key: key[::-1]))
        return core
