"""A machine: its disk, and the supervised ranks that outlive the agent.

What a supervisor does and leaves behind is simulated here; what the agent makes of it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from coordinator.core.records import Checkpoint, Lease
from node_agent.core.leases import Category, Fault, Rank, State
from node_agent.ranks import RankFiles
from tests.sim.clock import MINUTE, SECOND, LocalClock, Loop
from tests.sim.hangs import Course
from tests.sim.output import Output
from tests.sim.plans import Plan
from tests.sim.truth import Truth

Key = tuple[str, int]
MAX_RANKS = 3  # more of one lease only repeat what these show
ASKED_MS = MINUTE  # how long an engine that does not answer is asked how a container ended
LOST = Fault(Category.NODE_LOST, "the machine restarted")
FENCED = Fault(Category.NODE_LOST, "the node was out of contact; the job may run elsewhere")

NO_ENGINE = Fault(Category.NODE_LOST, "the node's container engine cannot be reached")
NOT_TOLD = Fault(Category.NODE_LOST, "the container engine did not tell how the container ended")


@dataclass(slots=True)
class Folder:
    """A lease on disk: the grant, and what its supervisors have written down."""

    lease: Lease
    told_at_commit: int  # commits behind the answer by which the agent learned of it
    ranks: dict[int, Rank] = field(default_factory=dict)
    synced: bool = False
    done: bool = False
    checkpointing: bool = False
    checkpoints: list[Checkpoint] = field(default_factory=list)
    asked: int = 0  # number of the newest checkpoint that was asked for
    saved: int = 0  # the newest of these that was answered by a proven checkpoint
    ends: dict[int, int] = field(default_factory=dict)  # rank → number of the end it is promised
    fenced: bool = False  # stopped because nobody answered for too long
    image: str = ""  # digest of what its ranks run in, once that is known; "" is no container
    gone: set[int] = field(default_factory=set)  # ranks of whose end nobody may know yet
    course: Course | None = None  # how far its rank 0 comes, once that has begun

    @property
    def key(self) -> Key:
        """Names the grant for ever."""
        return self.lease.lease_id, self.lease.epoch

    @property
    def is_alive(self) -> bool:
        """Whether any of its ranks runs."""
        return any(rank.state in (State.RUNNING, State.STOPPING) for rank in self.ranks.values())

    def has_process(self, number: int) -> bool:
        """Whether a rank's process is still there, or may still come."""
        return number not in self.gone and self.ranks[number].state is not State.ENDED

    @property
    def has_failed(self) -> bool:
        """Whether one of its ranks has ended badly by itself."""
        return any(rank.failed for rank in self.ranks.values())


class Machine:
    """Hardware that fails, and processes that do as their plans say."""

    def __init__(
        self,
        loop: Loop,
        rng: Random,
        *,
        clock: LocalClock,
        truth: Truth,
        plan_of: Callable[[str], Plan],
        output: Output,
    ) -> None:
        self.clock = clock
        self.output = output
        self.power = True
        self.generation = 0  # on disk
        self.folders: dict[Key, Folder] = {}  # on disk
        self.on_change: Callable[[], None] = lambda: None
        self.truth = truth
        self.plan_of = plan_of
        self._loop = loop
        self._rng = rng
        self.boot = 0
        self.engine_back_ms = 0  # until then nobody is answered by what runs containers
        self.acknowledged_ms = (
            0.0  # when the last answered call was sent, on the machine's own clock
        )

    @property
    def has_engine(self) -> bool:
        """Whether what runs containers answers."""
        return self._loop.now_ms >= self.engine_back_ms

    def start(self, folder: Folder) -> None:
        """Has supervisors start the ranks of a lease."""
        self.folders[folder.key] = folder
        fetches = self._rng.random() < 0.5  # a runtime that has to fetch something first
        for number in folder.ranks:
            begins_ms = self._rng.randint(1, 50)
            if fetches:
                folder.ranks[number] = replace(folder.ranks[number], state=State.PREPARING)
                begins_ms += self._rng.randint(1, 4 * SECOND)
            self._in(begins_ms, folder, partial(self._begin, folder, number))
        self._loop.after(self._rng.randint(50, 100), lambda: self._sync(folder))
        if folder.lease.fence_after_ms:
            self._in(1, folder, lambda: self._keep_fence(folder))

    def stop(self, folder: Folder, grace_ms: int) -> None:
        """Tells the supervisors to end the ranks within a grace."""
        plan = self.plan_of(folder.lease.job_id)
        if folder.is_alive and not folder.has_failed:
            self.truth.stop(folder.lease)
        for number, rank in folder.ranks.items():
            if rank.state is State.ENDED:
                continue
            folder.ranks[number] = replace(rank, stopped=True)
            delay_ms = grace_ms if plan.on_stop in ("ignores", "stuck") else min(grace_ms, 500)
            delay_ms = self.clock.world_ms(delay_ms)
            if plan.on_stop == "stuck":  # in the kernel, where no signal reaches it
                delay_ms += self._rng.choice((1, 30, 180)) * SECOND
            self._promise_end(folder, number, delay_ms)

    def _fence_left_ms(self, folder: Folder) -> int:
        after_ms = folder.lease.fence_after_ms
        return int(self.acknowledged_ms + after_ms - self.clock.elapsed_ms())

    def _keep_fence(self, folder: Folder) -> None:
        """What the supervisors do by themselves: stop when nobody has answered for too long."""
        if folder.fenced or all(rank.state is State.ENDED for rank in folder.ranks.values()):
            return
        left_ms = self._fence_left_ms(folder)
        if left_ms > 0:
            wait_ms = max(1, self.clock.world_ms(left_ms))
            self._in(wait_ms, folder, lambda: self._keep_fence(folder))
            return
        folder.fenced = True
        self.truth.asked.lost.add((folder.lease.job_id, folder.lease.attempt))
        self.stop(folder, max(0, left_ms + folder.lease.fence_after_ms // 3))

    def save(self, folder: Folder, number: int) -> None:
        """Asks the ranks for a checkpoint; those that know how to write one do so by and by."""
        if number <= folder.asked:
            return
        folder.asked = number
        plan = self.plan_of(folder.lease.job_id)
        if plan.checkpoints and not plan.every_ms and 0 in folder.ranks:
            delay_ms = self._rng.choice((10, SECOND, 20 * SECOND))
            self._in(delay_ms, folder, lambda: self._answer_save(folder, number))

    def _answer_save(self, folder: Folder, number: int) -> None:
        if folder.ranks[0].state is State.RUNNING:
            folder.saved = number
            self.truth.proven.add((*folder.key, number))
            self._add_checkpoint(folder)

    def _save_by_itself(self, folder: Folder) -> None:
        """Nobody has to ask; what was announced since somebody did is an answer all the same."""
        if folder.ranks[0].state is not State.RUNNING or folder.ranks[0].stopped:
            return
        lease = folder.lease
        self.truth.asked.saves.setdefault((lease.job_id, lease.attempt), []).append(
            self._loop.now_ms
        )
        if folder.asked > folder.saved:
            folder.saved = folder.asked
            self.truth.proven.add((*folder.key, folder.asked))
        self._add_checkpoint(folder)
        every_ms = self.plan_of(lease.job_id).every_ms
        self._in(every_ms, folder, lambda: self._save_by_itself(folder))

    def lose_power(self, *, wipe: bool) -> None:
        """Everything stops; with `wipe` the disk is forgotten as well."""
        self.power = False
        self.end_everything()
        for key, folder in list(self.folders.items()):
            if wipe or (not folder.synced and self._rng.random() < 0.5):
                # an end that nobody was told of is lost as well
                self.truth.asked.lost.add((folder.lease.job_id, folder.lease.attempt))
                self.output.lose(key)
                del self.folders[key]
            else:
                for number in folder.ranks:
                    self.output.cut_power(self.files(folder, number))
        if wipe:
            self.generation = 0

    def end_everything(self) -> None:
        """Every process is gone at once; nobody wrote down how."""
        self.boot += 1
        for folder in self.folders.values():
            if any(rank.state is not State.ENDED for rank in folder.ranks.values()):
                self.truth.asked.lost.add((folder.lease.job_id, folder.lease.attempt))
            for number, rank in folder.ranks.items():
                if rank.state is not State.ENDED:
                    ended_ms = int(self.clock.wall_ms())
                    folder.ranks[number] = replace(
                        rank, state=State.ENDED, fault=LOST, ended_at_ms=ended_ms
                    )
            folder.checkpointing = False
            self._part(folder)
            self.truth.end(folder.lease)

    def files(self, folder: Folder, number: int) -> RankFiles:
        """Where one rank's files are."""
        attempt = folder.lease.job_id, folder.lease.attempt
        return self.output.files(folder.key, attempt, rank=number)

    # ranks

    def _in(self, delay_ms: int, folder: Folder, act: Callable[[], None]) -> None:
        """Does something to a lease whose folder is still there then; nobody else is needed."""
        boot = self.boot

        def still() -> None:
            if self.boot == boot and self.folders.get(folder.key) is folder:
                act()

        self._loop.after(delay_ms, still)

    def _sync(self, folder: Folder) -> None:
        folder.synced = True

    def _begin(self, folder: Folder, number: int) -> None:
        rank = folder.ranks[number]
        if rank.state is State.ENDED:
            return
        fence_ms = folder.lease.fence_after_ms
        late = bool(fence_ms) and self._fence_left_ms(folder) <= 0
        folder.fenced = folder.fenced or late
        if rank.stopped or late:  # stopped before it had begun
            self._end(folder, number)
            return
        if folder.image and not self.has_engine:
            self.truth.asked.lost.add((folder.lease.job_id, folder.lease.attempt))
            self._end(folder, number, fault=NO_ENGINE)
            return
        if not folder.is_alive:
            if folder.image:
                self.truth.asked.ran[folder.key] = folder.image
            self.truth.start(
                folder.lease, now_ms=self._loop.now_ms, told_at_commit=folder.told_at_commit
            )
        started_ms = int(self.clock.wall_ms())
        folder.ranks[number] = replace(rank, state=State.RUNNING, started_at_ms=started_ms)
        plan = self.plan_of(folder.lease.job_id)
        if plan.every_ms and number == 0:
            self._in(plan.every_ms, folder, lambda: self._save_by_itself(folder))
        elif plan.checkpoints and number == 0:
            self._in(plan.duration_ms // 4, folder, lambda: self._checkpoint(folder))
        stalls = folder.lease.attempt <= plan.stalls
        if plan.watched and number == 0:
            self._set_out(folder, stalls_after_ms=plan.duration_ms // 2 if stalls else None)
        if not plan.hangs and not stalls:
            self._in(plan.duration_ms, folder, lambda: self._finish(folder, number))
        self._print(folder, number)
        self.on_change()

    def _part(self, folder: Folder) -> None:
        """A rank is gone: those that are left wait for it."""
        self.truth.asked.parted.setdefault(_grant(folder.lease), self._loop.now_ms)

    def _set_out(self, folder: Folder, *, stalls_after_ms: int | None) -> None:
        now_ms = self._loop.now_ms
        stalls_ms = None if stalls_after_ms is None else now_ms + stalls_after_ms
        folder.course = Course(now_ms, stalls_ms, _grant(folder.lease))
        if stalls_ms is not None:
            self.truth.asked.hung[folder.lease.job_id, folder.lease.attempt] = stalls_ms

    def reports(self, folder: Folder) -> int:
        """How often its rank 0 has reported progress."""
        course = folder.course
        return course.reports(self.truth.asked, self._loop.now_ms) if course is not None else 0

    def _print(self, folder: Folder, number: int) -> None:
        if folder.ranks[number].state is not State.ENDED:
            pause_ms = self.output.write(self.files(folder, number))
            if pause_ms:
                self._in(pause_ms, folder, lambda: self._print(folder, number))

    def _finish(self, folder: Folder, number: int) -> None:
        """The rank's program comes to its end; peers of one that fails wait for it for ever."""
        rank = folder.ranks[number]
        if not folder.has_process(number) or rank.stopped:
            return
        plan = self.plan_of(folder.lease.job_id)
        if folder.lease.attempt > plan.fails:
            folder.done = True
            self.end_rank(folder, number, exit_code=0)
        elif number == min(folder.ranks) and (number == 0 or self._rng.random() < 0.5):
            self.truth.asked.failed.add((folder.lease.job_id, folder.lease.attempt))
            self.end_rank(folder, number, exit_code=plan.exit_code)

    def _promise_end(self, folder: Folder, number: int, delay_ms: int) -> None:
        promise = folder.ends[number] = folder.ends.get(number, 0) + 1
        plan = self.plan_of(folder.lease.job_id)

        def over() -> None:
            if folder.ends[number] == promise and folder.has_process(number):
                has_begun = folder.ranks[number].started_at_ms is not None  # else nobody said so
                folder.done = folder.done or (plan.on_stop == "done" and has_begun)
                self.end_rank(folder, number, exit_code=0 if plan.on_stop != "ignores" else None)

        self._in(delay_ms, folder, over)

    def end_rank(
        self, folder: Folder, number: int, *, exit_code: int | None, fault: Fault | None = None
    ) -> None:
        """A rank's process is gone. What ran in a container is so once its engine has told how it ended."""
        if not folder.has_process(number):
            return
        folder.gone.add(number)
        self._tell_end(folder, number, exit_code=exit_code, fault=fault)

    def _tell_end(
        self, folder: Folder, number: int, *, exit_code: int | None, fault: Fault | None
    ) -> None:
        left_ms = self.engine_back_ms - self._loop.now_ms
        if not folder.image or left_ms <= 0:
            self._end(folder, number, exit_code=exit_code, fault=fault)
        elif left_ms <= ASKED_MS:
            again = partial(self._tell_end, folder, number, exit_code=exit_code, fault=fault)
            self._in(left_ms, folder, again)
        else:
            self.truth.asked.lost.add((folder.lease.job_id, folder.lease.attempt))
            self._in(ASKED_MS, folder, partial(self._end, folder, number, fault=NOT_TOLD))

    def _end(
        self,
        folder: Folder,
        number: int,
        *,
        exit_code: int | None = None,
        fault: Fault | None = None,
    ) -> None:
        if folder.ranks[number].state is State.ENDED:
            return
        was_alive = folder.is_alive
        if folder.ranks[number].state in (State.RUNNING, State.STOPPING):
            self.output.write(self.files(folder, number), last=True)
        folder.ranks[number] = replace(
            folder.ranks[number],
            state=State.ENDED,
            fault=FENCED if folder.fenced else fault,
            exit_code=exit_code,
            signal=9 if exit_code is None else None,
            ended_at_ms=int(self.clock.wall_ms()),
        )
        if number == 0:
            folder.checkpointing = False
        self._part(folder)
        if was_alive and not folder.is_alive:
            self.truth.end(folder.lease)
        self.on_change()

    def _checkpoint(self, folder: Folder) -> None:
        if folder.ranks[0].state is State.ENDED:
            return
        folder.checkpointing = True
        self.on_change()
        pause_ms = max(5 * SECOND, self.plan_of(folder.lease.job_id).duration_ms // 4)

        def proven() -> None:
            if folder.ranks[0].state is State.ENDED:
                return
            folder.checkpointing = False
            self._add_checkpoint(folder)
            self._in(min(pause_ms, MINUTE), folder, lambda: self._checkpoint(folder))

        self._in(self._rng.randint(1, 1 + pause_ms), folder, proven)

    def _add_checkpoint(self, folder: Folder) -> None:
        now_ms = int(self.clock.wall_ms())
        id = f"{folder.lease.lease_id}-c{self._loop.now_ms}"
        step = 1 + self.reports(folder)
        folder.checkpoints.append(_checkpoint(id, folder, step=step, now_ms=now_ms))
        del folder.checkpoints[:-2]
        self.on_change()


def new_folder(lease: Lease, told_at_commit: int) -> Folder:
    """The folder of a lease that is about to be started."""
    count = min(lease.local_world_size, MAX_RANKS)
    numbers = range(lease.first_rank, lease.first_rank + count)
    return Folder(lease, told_at_commit, {number: Rank(number) for number in numbers})


def copy_of(folders: Mapping[Key, Folder]) -> dict[Key, Folder]:
    """The disk of a cloned machine: the same grants, and no process behind any of them."""
    return {
        key: Folder(
            folder.lease,
            folder.told_at_commit,
            {
                n: rank
                if rank.state is State.ENDED
                else replace(rank, state=State.ENDED, fault=LOST)
                for n, rank in folder.ranks.items()
            },
            synced=True,
            done=folder.done,
            image=folder.image,
        )
        for key, folder in folders.items()
    }


def _grant(lease: Lease) -> tuple[str, int, int]:
    return lease.job_id, lease.attempt, lease.epoch


def _checkpoint(id: str, folder: Folder, *, step: int, now_ms: int) -> Checkpoint:
    return Checkpoint(
        checkpoint_id=id,
        step=step,
        uri=f"file:///{id}",
        size_bytes=1,
        digest="sha256:0",
        created_at_ms=now_ms,
        attempt=folder.lease.attempt,
    )
