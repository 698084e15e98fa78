"""What a store holds: the upserts and deletions of committed batches, and nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from coordinator.core.core import Core, CoreSettings
from coordinator.core.decision import Changed, Event, Heard
from coordinator.core.records import Documents, Entry, Job, Kind, Record

Undo = list[tuple[tuple[Kind, str], Record | None]]
UNDO_BATCHES = 12


class RecordsKept:
    """Live records by kind and id, and the jobs that became history."""

    def __init__(self) -> None:
        self.live: dict[tuple[Kind, str], Record] = {}
        self.history: dict[str, Job] = {}
        self.entries: dict[str, Entry] = {}  # of the ledger, by lease
        self._undo: deque[Undo] = deque(maxlen=UNDO_BATCHES)

    def commit(self, events: Iterable[Event]) -> None:
        """Makes the events of a batch durable."""
        undo: Undo = []
        for event in events:
            if isinstance(event, Heard):
                continue
            if isinstance(event, Changed):
                if isinstance(event.record, Entry):
                    undo.append(((Kind.ENTRY, event.record.id), None))
                    self.entries[event.record.id] = event.record
                elif not isinstance(event.record, Documents):
                    key = event.record.kind, event.record.id
                    undo.append((key, self.live.get(key)))
                    self.live[key] = event.record
                continue
            key = event.kind, event.id
            record = self.live.pop(key)
            undo.append((key, record))
            if isinstance(record, Job):
                self.history[record.job_id] = record
        if undo:
            self._undo.append(undo)

    def lose(self, count: int) -> int:
        """Forgets the newest batches, as a copy that takes over too early does; answers how many."""
        lost = 0
        while self._undo and lost < count:
            lost += 1
            for key, before in reversed(self._undo.pop()):
                if key[0] is Kind.JOB:
                    self.history.pop(key[1], None)
                if key[0] is Kind.ENTRY:
                    self.entries.pop(key[1])
                if before is None:
                    self.live.pop(key, None)
                else:
                    self.live[key] = before
        return lost

    def reload(self, settings: CoreSettings | None = None) -> Core:
        """Another core that has loaded what is stored, in an order that means nothing."""
        core = Core(settings)
        core.load(self.live[key] for key in sorted(self.live, key=lambda key: key[::-1]))
        return core

    def is_held_by(self, core: Core) -> bool:
        """Whether a core's state is exactly what is stored."""
        return self.live == {(one.kind, one.id): one for one in core.state.records()}
