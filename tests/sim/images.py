"""Images that jobs name, where they come from, and the engines that run them.

One name that everybody uses is moved to another image now and then. A node that has had an image under
that name goes on with it, as engines do, so two nodes seldom agree for long: what keeps a job on one image
is what the coordinator tells its agents. Few worlds have any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

from coordinator.core.decision import Changed, Event
from coordinator.core.records import Job, JobStatus, Lease
from node_agent.core.leases import Category, Fault, State
from tests.sim.clock import SECOND, Loop
from tests.sim.kept import RecordsKept
from tests.sim.machine import NO_ENGINE, Folder, Machine
from tests.sim.plans import Plan
from tests.sim.truth import Checker, Going, SimFailure, Truth

WORLDS = 4  # one in so many has any
NAME = "training"
PULLS_MS = (100, 2 * SECOND, 10 * SECOND, 45 * SECOND)
BYTES = 4 << 30
NO_ANSWER = Fault(Category.IMAGE, "resource_config.image: the registry does not answer")
OUT_OF_MEMORY = Fault(
    Category.HOST_OOM, "the kernel ended it: it needs more memory than it may have"
)


def with_images(plans: Mapping[str, Plan], rng: Random) -> dict[str, Plan]:
    """The same jobs, of which most name an image."""
    return {
        name: replace(plan, image=NAME if rng.random() < 0.7 else "")
        for name, plan in plans.items()
    }


class Registry:
    """Tells what the name stands for; older images stay where they are."""

    def __init__(self) -> None:
        self.version = 1
        self.is_away = False

    def move(self) -> None:
        """Somebody builds the image anew."""
        self.version += 1

    @property
    def digest(self) -> str:
        """What the name stands for now."""
        return f"sha256:{self.version:064x}"


@dataclass(frozen=True, slots=True)
class Brought:
    """An image that is there after so long; or why it is not."""

    after_ms: int = 0
    digest: str = ""
    fault: Fault | None = None


NOTHING = Brought()


class Shelf:
    """The images of one node, and its engine."""

    def __init__(self, loop: Loop, rng: Random, registry: Registry, *, rate: int) -> None:
        self._bytes_per_s = rate  # as placement is told; 0 is not
        self._loop = loop
        self._rng = rng
        self._registry = registry
        self._there_ms: dict[str, int] = {}  # digest → when it is
        self._named = ""  # what the name stands for here

    @property
    def at_hand(self) -> tuple[tuple[str, ...], int]:
        """What placement is told: names, and how many bytes per second others would fetch them with."""
        return (NAME,) if self._named else (), self._bytes_per_s

    def bring(self, pinned: str, *, engine: bool) -> Brought:
        """Has an image there: that of a digest, or what the name stands for."""
        if not engine:
            return Brought(SECOND, fault=NO_ENGINE)
        digest = pinned or self._named or self._registry.digest
        if digest not in self._there_ms:
            takes_ms = self._rng.choice(PULLS_MS)
            if self._registry.is_away:
                return Brought(takes_ms, fault=NO_ANSWER)
            self._there_ms[digest] = self._loop.now_ms + takes_ms
        if not pinned:
            self._named = digest
        return Brought(max(0, self._there_ms[digest] - self._loop.now_ms), digest)

    def clear(self) -> None:
        """The disk is lost."""
        self._there_ms.clear()
        self._named = ""


def lose_container(machine: Machine, rng: Random, *, fault: Fault) -> bool:
    """One container that runs is ended by somebody else than its supervisor; whether there was any."""
    running = [
        (folder, number)
        for folder in machine.folders.values()
        for number, rank in folder.ranks.items()
        if folder.image and rank.state is State.RUNNING and folder.has_process(number)
    ]
    if running:
        folder, number = rng.choice(running)
        deserved = fault.category is not Category.NODE_LOST
        ends = machine.truth.asked.failed if deserved else machine.truth.asked.lost
        ends.add((folder.lease.job_id, folder.lease.attempt))
        machine.end_rank(folder, number, exit_code=137, fault=fault)
    return bool(running)


def resolved(truth: Truth, folder: Folder, digest: str) -> None:
    """A node has found out what a job's image is, or was told."""
    folder.image = digest
    attempt = folder.lease.job_id, folder.lease.attempt
    if folder.key in truth.asked.unbrought:  # an agent that nobody has heard of it is no more
        truth.asked.unbrought.discard(folder.key)
        truth.asked.failed.discard(attempt)
    found = truth.asked.images.setdefault(attempt, set())
    found.add(digest)
    if len(found) > 1:
        truth.asked.lost.add(attempt)  # it is to run again, with the same everywhere


class SameImage(Checker):
    """A job's image stays what it was found to be first: on all nodes, in all attempts, for its children."""

    facts = (Job, Lease)

    def __init__(
        self, truth: Truth, plan_of: Callable[[str], Plan], seen: Callable[..., None]
    ) -> None:
        self._truth = truth
        self._plan_of = plan_of
        self._seen = seen
        self._jobs: dict[str, Job] = {}
        self._pinned_at: dict[str, int] = {}  # job → commit
        self._epochs: dict[str, int] = {}

    def rewound(self, store: RecordsKept) -> None:
        self._pinned_at.clear()
        kept = [one for one in store.live.values() if isinstance(one, Job)]
        self._jobs = {one.job_id: one for one in (*kept, *store.history.values())}

    def started(self, going: Going) -> None:
        lease = going.lease
        ran = self._truth.asked.ran.get((lease.lease_id, lease.epoch), "")
        at = self._pinned_at.get(lease.job_id)
        if not ran or at is None or going.told_at_commit < at:
            return
        self._seen("image", "kept" if lease.attempt == 1 else "kept in a later attempt")
        if ran != self._jobs[lease.job_id].image_digest:
            raise SimFailure(f"{lease.lease_id} runs another image", lease.job_id)

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        if isinstance(event.record, Lease):
            self._epochs[event.record.lease_id] = event.record.epoch
        elif isinstance(event.record, Job):
            job = event.record
            before = self._jobs.get(job.job_id) or self._jobs.get(job.parent_job_id)
            self._jobs[job.job_id] = job
            if before is not None and before.image_digest not in ("", job.image_digest):
                raise SimFailure(f"the image of {job.job_id} changes", job.job_id)
            if job.image_digest and job.job_id not in self._pinned_at:
                self._pinned_at[job.job_id] = number
            if job.status is JobStatus.COMPLETED:
                self._check_ran(job)

    def _check_ran(self, job: Job) -> None:
        if not self._plan_of(job.job_id).image or job.attempt is None or self._truth.rewinds:
            return
        ids = [f"{job.job_id}.{job.attempt.number}.{n}" for n in range(len(job.attempt.shares))]
        ran = {self._truth.asked.ran.get((id, self._epochs[id])) for id in ids}
        self._seen("image", "one node" if len(ids) == 1 else "several nodes")
        if ran != {job.image_digest}:
            raise SimFailure(f"{job.job_id} has run {ran}, not {job.image_digest}", job.job_id)
