"""What is true in the world, whatever the coordinator believes: which ranks run on which devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from inspect import isfunction
from typing import ClassVar

from coordinator.core.commands import UpdateJob
from coordinator.core.decision import Changed, Event
from coordinator.core.records import Job, Lease, Queue
from tests.sim.kept import RecordsKept


@dataclass(frozen=True, slots=True)
class Going:
    """Ranks of one lease that really run."""

    lease: Lease  # as it was granted
    started_ms: int
    told_at_commit: int  # commits behind the answer by which the agent learned of it


Grant = tuple[str, int]  # lease, epoch
Origin = tuple[str, int, int, int]  # job, attempt, rank, channel


@dataclass(slots=True)
class Printed:
    """All that one channel of one rank has ever printed."""

    data: bytearray = field(default_factory=bytearray)
    lines: int = 0  # begun
    grants: dict[Grant, None] = field(default_factory=dict)  # under which it was printed
    is_cut: bool = False  # a fault has taken some of the end for good
    writer: Grant | None = None  # the last to print
    is_mixed: bool = False  # ranks of two grants, or of two machines, have printed it


@dataclass(frozen=True, slots=True)
class Tried:
    """One time that a batch was asked for: its job ids belong to no other time."""

    number: int  # of the batch
    attempt: int
    size: int
    atomic: bool


@dataclass(slots=True)
class Asked:
    """What people and faults really did; the only good reasons to stop a healthy rank."""

    cancels: set[str] = field(default_factory=set)  # job ids of which a cancel was sent
    emptied: dict[str, int] = field(default_factory=dict)  # node → when last asked to be emptied
    pauses: dict[str, set[str]] = field(default_factory=dict)  # job → how it was asked to pause
    preempts: set[str] = field(default_factory=set)  # job ids
    retries: dict[str, int] = field(default_factory=dict)  # job → how many people asked for a child
    changes: dict[str, list[UpdateJob]] = field(default_factory=dict)  # job → what was asked
    batches: dict[str, Tried] = field(default_factory=dict)  # job → for which try it was named
    keys: dict[str, str] = field(default_factory=dict)  # API key → request for which it was named
    credentials: dict[str, set[str]] = field(default_factory=dict)  # node → digests it ever had
    removed: set[str] = field(default_factory=set)  # node ids
    queues: list[Queue] = field(default_factory=list)  # as they were to be set
    queues_removed: set[str] = field(default_factory=set)  # names
    failed: set[tuple[str, int]] = field(default_factory=set)  # (job, attempt) with a bad end
    lost: set[tuple[str, int]] = field(default_factory=set)  # (job, attempt) lost with a node
    hung: dict[tuple[str, int], int] = field(default_factory=dict)  # (job, attempt) → since when
    images: dict[tuple[str, int], set[str]] = field(default_factory=dict)  # (job, attempt) → found
    unbrought: set[Grant] = field(default_factory=set)  # whose image was not to be had
    ran: dict[tuple[str, int], str] = field(default_factory=dict)  # (lease, epoch) → image
    saves: dict[tuple[str, int], list[int]] = field(default_factory=dict)  # (job, attempt) → when,
    # of those that hear no ask
    parted: dict[tuple[str, int, int], int] = field(default_factory=dict)  # (job, attempt, epoch) →
    # when the first of its ranks ended


class Checker:
    """One property. Methods are called as the world goes on; each may raise SimFailure.

    `facts` are those that `committed` is told of: classes of records that are new or changed,
    Retired and Heard.
    """

    facts: ClassVar[tuple[type, ...]] = ()

    def committed(self, event: Event, number: int) -> None:
        """An event is durable, in the commit of that number."""

    def led(self) -> None:
        """A leader begins: it has heard nobody."""

    def started(self, going: Going) -> None:
        """Ranks began to run."""

    def ended(self, going: Going) -> None:
        """Ranks do not run any more."""

    def stopped(self, going: Going) -> None:
        """Ranks that run well are asked to stop."""

    def acknowledged(self, what: str, id: str, number: int) -> None:
        """Somebody was told that a submit, cancel, drain or enable was done."""

    def rewound(self, store: RecordsKept) -> None:
        """The store has lost its newest batches: what it holds now is all that ever was."""

    def log_ended(self, job_id: str) -> None:
        """Somebody is told that a job's log is complete."""

    def settled(self) -> None:
        """The faults have ceased, and everything had time to come to rest."""


class JobChecker(Checker):
    """One property of what becomes of jobs."""

    facts: ClassVar[tuple[type, ...]] = (Job,)

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def changed(self, event: Changed, job: Job, *, before: Job | None) -> None:
        """A job is durable as it is now; `before` is how it was."""

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Changed) and isinstance(event.record, Job):
            before = self._jobs.get(event.record.job_id)
            self._jobs[event.record.job_id] = event.record
            self.changed(event, event.record, before=before)

    def rewound(self, store: RecordsKept) -> None:
        self._jobs = {one.job_id: one for one in store.live.values() if isinstance(one, Job)}


HOOKS = tuple(name for name, what in vars(Checker).items() if isfunction(what))


class SimFailure(AssertionError):
    """A property does not hold. `ids` are the objects whose story matters."""

    def __init__(self, text: str, *ids: str) -> None:
        super().__init__(text)
        self.ids = ids


class Truth:
    """The ranks that run, and those who watch them."""

    def __init__(self, checkers: Sequence[Checker]) -> None:
        self.going: dict[tuple[str, int], Going] = {}
        self.asked = Asked()
        self.printed: dict[Origin, Printed] = {}
        self.proven: set[tuple[str, int, int]] = set()  # (lease, epoch, ask) that was answered
        self.rewinds = 0  # how many times the store has lost batches
        self.clones = 0  # how many machines came to have the name of another one
        self.checkers: list[Checker] = []
        self.played: Counter[type] = Counter()  # commands that were decided, actions of agents
        self.looked: Counter[str] = Counter()  # how often somebody looked, where no checker does
        self._told: Counter[str] = Counter()
        self._facts: Counter[type] = Counter()
        self._watching: dict[str, list[Checker]] = {}  # those who look at each kind of thing
        self._looking: dict[type, list[Checker]] = {}  # and at each kind of fact
        self.add(checkers)

    def add(self, checkers: Iterable[Checker]) -> None:
        """More of those who watch."""
        self.checkers += checkers
        self._looking.clear()
        for hook in HOOKS:
            plain = getattr(Checker, hook)
            self._watching[hook] = [x for x in self.checkers if getattr(type(x), hook) != plain]
        blind = [x for x in self._watching["committed"] if not x.facts]
        assert not blind, f"{blind} do not say at what they look"

    def checks(self) -> Counter[str]:
        """How often each checker has looked at something."""
        found = Counter(self.looked)
        for fact, times in self._facts.items():
            for checker in self._who_looks_at(fact):
                found[type(checker).__name__] += times
        for hook, watching in self._watching.items():
            for checker in watching:
                found[type(checker).__name__] += self._told[hook]
        return found

    def start(self, lease: Lease, *, now_ms: int, told_at_commit: int) -> None:
        """Ranks of a lease begin to run."""
        going = Going(lease, now_ms, told_at_commit)
        self._tell("started", going)
        self.going[lease.lease_id, lease.epoch] = going

    def end(self, lease: Lease) -> None:
        """Ranks of a lease have ended, if they ran."""
        going = self.going.pop((lease.lease_id, lease.epoch), None)
        if going is not None:
            self._tell("ended", going)

    def stop(self, lease: Lease) -> None:
        """Ranks of a lease that run well are asked to stop."""
        going = self.going.get((lease.lease_id, lease.epoch))
        if going is not None:
            self._tell("stopped", going)

    def printed_by(self, grant: Grant) -> list[Printed]:
        """What the ranks of a grant have printed."""
        job_id = grant[0].split(".", 1)[0]
        return [
            printed
            for origin, printed in self.printed.items()
            if origin[0] == job_id and grant in printed.grants
        ]

    def show_end(self, job_id: str) -> None:
        """Somebody is told that a job's log is complete."""
        self._tell("log_ended", job_id)

    def lead(self) -> None:
        """A leader begins."""
        self._tell("led")

    def rewind(self, store: RecordsKept) -> None:
        """The store has lost its newest batches."""
        self.rewinds += 1
        for printed in self.printed.values():
            printed.is_cut = True  # its sender may not have it any more
        self._tell("rewound", store)

    def commit(self, events: Sequence[Event], number: int) -> None:
        """Events are durable."""
        for event in events:
            fact = type(event.record) if type(event) is Changed else type(event)
            self._facts[fact] += 1
            looking = self._looking.get(fact)
            for checker in self._who_looks_at(fact) if looking is None else looking:
                checker.committed(event, number)

    def acknowledge(self, what: str, id: str, number: int) -> None:
        """Somebody is told that something was done."""
        self._tell("acknowledged", what, id, number)

    def settle(self) -> None:
        """Everything has had the time to come to rest."""
        self._tell("settled")

    def _who_looks_at(self, fact: type) -> list[Checker]:
        if fact not in self._looking:
            self._looking[fact] = [one for one in self.checkers if fact in one.facts]
        return self._looking[fact]

    def _tell(self, hook: str, *facts: object) -> None:
        self._told[hook] += 1
        for checker in self._watching[hook]:
            getattr(checker, hook)(*facts)
