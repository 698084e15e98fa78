"""Clients and operators: they ask, hear nothing, and ask again with the same request id."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random

from coordinator.core.commands import (
    ActOnJobs,
    Caller,
    CancelJob,
    CancelRollingDrain,
    Command,
    DrainNode,
    EnableNode,
    PauseJob,
    PreemptJob,
    PutQueue,
    RemoveNode,
    RemoveQueue,
    ResumeJob,
    RetryJob,
    SetHealth,
    StartRollingDrain,
    SubmitJob,
    SubmitJobs,
    UpdateJob,
)
from coordinator.core.decision import Rejected, Reply
from coordinator.core.health import HealthState
from coordinator.core.reasons import Reason
from coordinator.core.records import ROOT, OnTimeout, Order, Queue, RollingDrain
from coordinator.core.requests import no_job
from tests.sim.clock import SECOND, Loop
from tests.sim.coordinator import SimCoordinator
from tests.sim.network import Network
from tests.sim.plans import TENANTS, Plan
from tests.sim.truth import SimFailure, Truth

OPERATOR = "house"
PATIENCE_MS = 5 * SECOND
TRIES = 40
RETRIES_MOST = 4
QUEUES = ("default", "default", "other")


@dataclass(slots=True)
class Wish:
    """Something that somebody asks for until there is an answer."""

    what: str  # submit, cancel, drain, enable
    number: int
    command: Command | None
    renewed: Callable[[Wish], Command | None] | None = None  # makes it anew for each time
    heard: Callable[[Reply | Rejected], None] | None = None
    tries: int = 0
    answered: bool = False
    job_id: str = ""
    refused: str = ""


class People:
    """Everybody who asks."""

    def __init__(
        self,
        loop: Loop,
        rng: Random,
        *,
        coordinator: SimCoordinator,
        network: Network,
        truth: Truth,
        note: Callable[[str], None],
    ) -> None:
        self.wishes: list[Wish] = []
        self.names: dict[str, str] = {}  # job id → name of its plan
        self.accepted: dict[str, str] = {}  # name → job id, as somebody was told
        self._loop = loop
        self._rng = rng
        self._coordinator = coordinator
        self._network = network
        self._truth = truth
        self._note = note
        self._tenants: dict[str, str] = {}  # job id → who wanted it
        self._job_ids = 0
        self.on_answer: Callable[[Wish, Reply], None] = lambda wish, reply: None
        self._rolls = 0
        self._calls: dict[str, int] = {}  # by tenant
        self._waiting = 0

    def submit(self, plan: Plan) -> None:
        """Somebody submits a job."""
        self._wish("submit", self.submission(plan, self.caller("submit", plan.tenant_id)))

    def submission(self, plan: Plan, caller: Caller) -> SubmitJob:
        """What somebody says who submits a job; it may wait for another one."""
        policy = plan.policy
        if plan.wants_dependency and self.accepted:
            needed = self._rng.choice(sorted(self.accepted.values()))
            if self.tenant_of(needed) == plan.tenant_id or self._rng.random() < 0.3:
                policy = replace(policy, depends_on=(needed,))
        if self._rng.random() < 0.1:
            policy = replace(policy, start_after_ms=self._coordinator.clock.now_ms() + 40 * SECOND)
        if plan.after_ms:
            policy = replace(
                policy, start_after_ms=self._coordinator.clock.now_ms() + plan.after_ms
            )
        if plan.wanted_in_ms:
            wanted_ms = self._coordinator.clock.now_ms() + plan.wanted_in_ms
            policy = replace(policy, deadline_ms=wanted_ms)
        return SubmitJob(
            caller=caller,
            job_id="",
            name=plan.name,
            demand=plan.demand,
            policy=policy,
            document=b"{}",
            priority=plan.priority,
            wants=(plan.image,) if plan.image else (),
            image=plan.image,
        )

    def with_id(self, command: SubmitJob) -> SubmitJob:
        """As a servicer does: a new id for each call; only the request id is the same."""
        self._job_ids += 1
        job_id = f"j{self._job_ids}"
        self.names[job_id] = command.name
        self._tenants[job_id] = command.caller.tenant_id
        return replace(command, job_id=job_id)

    def ask(
        self,
        what: str,
        command: Command | None = None,
        *,
        renewed: Callable[[Wish], Command | None] | None = None,
        heard: Callable[[Reply | Rejected], None] | None = None,
    ) -> None:
        """Asks for something that is told to `heard`; `renewed` makes it anew each time, or gives up."""
        wish = self._wish(what, command, asks=False)
        wish.renewed, wish.heard = renewed, heard
        self._ask(wish)

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Somebody does something later."""
        self._loop.after(delay_ms, act)

    def cancel(self, job_id: str) -> None:
        """Somebody cancels a job."""
        self._truth.asked.cancels.add(job_id)
        self._wish(
            "cancel",
            CancelJob(caller=self.caller("cancel", self.tenant_of(job_id)), job_id=job_id),
            job_id,
        )

    def pause(self, job_id: str) -> None:
        """Somebody pauses a job, in one of the ways there are."""
        how = self._rng.choice(("KEEP_RUNNING", "KEEP_RUNNING", "USE_LATEST", "STOP", "nosave"))
        self._truth.asked.pauses.setdefault(job_id, set()).add(how)
        saves = how != "nosave"
        command = PauseJob(
            caller=self.caller("pause", self.tenant_of(job_id)),
            job_id=job_id,
            save_checkpoint=saves,
            timeout_ms=self._rng.choice((0, 5, 60)) * SECOND,
            on_timeout=OnTimeout(how) if saves else OnTimeout.KEEP_RUNNING,
        )
        self._wish("pause", command, job_id)

    def resume(self, job_id: str) -> None:
        """Somebody resumes a job, or takes a pause back."""
        self._wish(
            "resume",
            ResumeJob(caller=self.caller("resume", self.tenant_of(job_id)), job_id=job_id),
            job_id,
        )

    def retry(self, job_id: str) -> None:
        """Somebody retries a job that failed or was preempted."""
        asked = self._truth.asked.retries
        if asked.get(job_id, 0) == RETRIES_MOST:
            return  # a world has to come to rest some day
        asked[job_id] = asked.get(job_id, 0) + 1
        command = RetryJob(
            caller=self.caller("retry", self.tenant_of(job_id)),
            job_id=job_id,
            new_job_id="",
            document=b"{}",
        )
        self._wish("retry", command, job_id)

    def preempt(self, job_id: str) -> None:
        """An operator takes a job's devices."""
        self._truth.asked.preempts.add(job_id)
        self._wish(
            "preempt",
            PreemptJob(caller=self.caller("preempt"), job_id=job_id),
            job_id,
        )

    def change(self, job_id: str) -> None:
        """Somebody changes a job, and sometimes others with it, in one decision."""
        others = sorted({*self.accepted.values()} - {job_id})
        job_ids = [job_id, *self._rng.sample(others, min(len(others), self._rng.choice((0, 0, 2))))]
        tenant_id = self.tenant_of(job_id)
        acts = tuple(self._change(one, tenant_id) for one in job_ids)
        for act in acts:
            if self.tenant_of(act.job_id) == tenant_id:  # others are as unknown as nobody's
                self._truth.asked.changes.setdefault(act.job_id, []).append(act)
        caller = self.caller("change", tenant_id)
        if len(acts) == 1:
            self._wish("change", replace(acts[0], caller=caller), job_id)
        else:
            self._wish("change", ActOnJobs(caller=caller, acts=acts), job_id)

    def _change(self, job_id: str, tenant_id: str) -> UpdateJob:
        what = self._rng.choice(
            ("priority", "queue_name", "max_runtime_ms", "expected_duration_ms")
        )
        limits_ms = tuple(second * SECOND for second in (0, 10, 600))
        change: UpdateJob = UpdateJob(
            caller=Caller(tenant_id=tenant_id, user_id="change"),
            job_id=job_id,
            priority=self._rng.randint(0, 10) if what == "priority" else None,
            queue_name=self._rng.choice(QUEUES) if what == "queue_name" else None,
            max_runtime_ms=self._rng.choice(limits_ms) if what == "max_runtime_ms" else None,
            expected_duration_ms=(
                self._rng.choice(limits_ms) if what == "expected_duration_ms" else None
            ),
        )
        return change

    def set_queue(self, rng: Random) -> None:
        """An operator says where a queue stands, how it is ordered and what it may take."""
        name = rng.choice((*QUEUES, ROOT))
        queue = Queue(
            name=name,
            parent=rng.choice(("other", ROOT, ROOT)) if name == "default" else ROOT,
            weight=rng.randint(1, 3),
            guaranteed_devices=rng.choice((0, 0, 1, 3)),
            max_devices=rng.choice((0, 0, 0, 4)),
            tenant_limits=rng.choice(((), (), (("*", 4),))),
            places=rng.random() < 0.9,
            order=rng.choice(list(Order)),
            preempts=rng.random() < 0.8,
        )
        self.put_queue(queue)

    def put_queue(self, queue: Queue) -> None:
        """An operator sets a queue."""
        self._truth.asked.queues.append(queue)
        self._wish("queue", PutQueue(caller=self.caller("queue"), queue=queue))

    def remove_queue(self, name: str) -> None:
        """An operator lets a queue be as by default again."""
        self._truth.asked.queues_removed.add(name)
        self._wish("remove queue", RemoveQueue(caller=self.caller("queue"), name=name))

    def withdraw(self, what: str) -> None:
        """Nobody asks any more for what was not answered yet; it may be on its way."""
        for wish in self.wishes:
            if wish.what == what and not wish.answered:
                self._close(wish)

    def lift_limits(self) -> None:
        """An operator lets every queue take and start what it can."""
        for record in [*self._coordinator.store.live.values()]:
            if isinstance(record, Queue):
                queue = Queue(name=record.name, order=record.order, preempts=record.preempts)
                self.put_queue(queue)

    def stranger(self, job_id: str) -> None:
        """Somebody of another tenant wishes something of a job that he cannot know of."""
        own = self.tenant_of(job_id)
        caller = self.caller("stranger", next(one for one in TENANTS if one != own))
        wishes: tuple[Command, ...] = (
            CancelJob(caller=caller, job_id=job_id),
            PauseJob(caller=caller, job_id=job_id, save_checkpoint=False),
            ResumeJob(caller=caller, job_id=job_id),
            RetryJob(caller=caller, job_id=job_id, new_job_id="", document=b"{}"),
            UpdateJob(caller=caller, job_id=job_id, priority=3),
        )
        self._wish("stranger", self._rng.choice(wishes), job_id)

    def tenant_of(self, job_id: str) -> str:
        """Whose job it is."""
        return self._tenants[job_id]

    def drain(
        self, node_id: str, *, force: bool = False, move: bool = False, deadline_ms: int = 0
    ) -> None:
        """An operator drains a node."""
        if force or move or deadline_ms:
            self._truth.asked.emptied[node_id] = self._loop.now_ms
        command = DrainNode(
            caller=self.caller("drain"),
            node_id=node_id,
            force=force,
            move=move,
            deadline_ms=deadline_ms,
        )
        self._wish("drain", command, node_id)

    def maintain(
        self, node_id: str, *, from_ms: int, until_ms: int, force: bool = False, move: bool = False
    ) -> None:
        """An operator has a node be out later, for a while. Times are the coordinator's."""
        self._truth.asked.emptied[node_id] = self._loop.now_ms
        command = DrainNode(
            caller=self.caller("maintain"),
            node_id=node_id,
            force=force,
            move=move,
            from_ms=from_ms,
            until_ms=until_ms,
        )
        self._wish("maintain", command, node_id)

    def roll(self, rng: Random, node_ids: Iterable[str]) -> None:
        """An operator has nodes drained a few at a time."""
        self._rolls += 1
        drain = RollingDrain(
            drain_id=f"roll{self._rolls}",
            max_unavailable=rng.randint(1, 2),
            until_enabled=rng.random() < 0.5,
            move=rng.random() < 0.5,
            node_deadline_ms=rng.choice((0, 20, 60)) * 1000,
        )
        for node_id in node_ids:
            self._truth.asked.emptied[node_id] = self._loop.now_ms
        self._wish("roll", StartRollingDrain(caller=self.caller("roll"), drain=drain))

    def stop_rolling(self) -> None:
        """An operator lets no rolling drain take more nodes."""
        for record in [*self._coordinator.store.live.values()]:
            if isinstance(record, RollingDrain) and not record.ended_at_ms:
                caller = self.caller("no roll")
                command = CancelRollingDrain(caller=caller, drain_id=record.drain_id)
                self._wish("no roll", command, record.drain_id)

    def enable(self, node_id: str) -> None:
        """An operator lets a node take jobs again."""
        self._wish("enable", EnableNode(caller=self.caller("enable"), node_id=node_id), node_id)

    def trust(self, node_id: str, state: HealthState, device_id: str = "") -> None:
        """An operator says how far a node, or one of its devices, is trusted."""
        command = SetHealth(
            caller=self.caller("health"), node_id=node_id, device_id=device_id, state=state
        )
        self._wish("health", command, node_id)

    def remove(self, node_id: str) -> Wish:
        """An operator removes a node that is switched off."""
        self._truth.asked.removed.add(node_id)
        command = RemoveNode(caller=self.caller("remove"), node_id=node_id)
        return self._wish("remove", command, node_id)

    @property
    def waiting(self) -> bool:
        """Whether somebody still waits for an answer."""
        return self._waiting > 0

    def caller(self, what: str, tenant_id: str = OPERATOR) -> Caller:
        """Whoever asks, under a request id of his own."""
        # two tenants use the same request ids, and mean nothing by it
        number = self._calls[tenant_id] = self._calls.get(tenant_id, 0) + 1
        request_id = f"r{number}"
        return Caller(tenant_id=tenant_id, user_id=what, request_id=request_id, digest=request_id)

    def _close(self, wish: Wish) -> None:
        wish.answered = True
        self._waiting -= 1

    def _wish(self, what: str, command: Command | None, id: str = "", *, asks: bool = True) -> Wish:
        wish = Wish(what, len(self.wishes), command, job_id=id)
        self.wishes.append(wish)
        self._waiting += 1
        if asks:
            self._ask(wish)
        return wish

    def _ask(self, wish: Wish) -> None:
        if wish.answered:
            return
        wish.tries += 1
        if wish.renewed is not None:
            wish.command = wish.renewed(wish)
        command = wish.command
        if command is None:
            self._close(wish)
            return
        if isinstance(command, SubmitJob):
            command = self.with_id(command)
        if isinstance(command, RetryJob):
            self._job_ids += 1
            child_id = f"j{self._job_ids}"
            self.names[child_id] = self.names[command.job_id]
            self._tenants[child_id] = command.caller.tenant_id
            command = replace(command, new_job_id=child_id)
        asked = command

        def arrive() -> None:
            self._coordinator.submit(self._looked_up(asked), respond)

        def respond(reply: Reply | Rejected | None) -> None:
            if reply is not None:
                commits = self._coordinator.commits
                self._network.send(wish.what, lambda: self._hear(wish, reply, commits), up=False)

        self._network.send(wish.what, arrive)
        self._loop.after(PATIENCE_MS + self._rng.randint(0, 2000), lambda: self._ask(wish))

    def _looked_up(self, command: Command) -> Command:
        """What the servicer adds from the store."""
        if isinstance(command, SubmitJob):
            history = self._coordinator.store.history
            needed = [history[id] for id in command.policy.depends_on if id in history]
            own = [job for job in needed if job.tenant_id == command.caller.tenant_id]
            found = [(job.job_id, job.status.value) for job in own]
            return replace(command, finished_dependencies=tuple(found))
        if isinstance(command, SubmitJobs):
            jobs = [self._looked_up(one) for one in command.jobs]
            return replace(command, jobs=tuple(x for x in jobs if isinstance(x, SubmitJob)))
        if isinstance(command, RetryJob):
            return replace(command, parent=self._coordinator.store.history.get(command.job_id))
        return command

    def _hear(self, wish: Wish, reply: Reply | Rejected, commits: int) -> None:
        if wish.answered:
            return
        self._close(wish)
        self._check_tenant(wish, reply)
        if wish.heard is not None:
            wish.heard(reply)
        if isinstance(reply, Rejected):
            wish.refused = reply.reason
            self._check_refused(wish)
            self._note(f"{wish.what} {wish.job_id} refused: {reply.reason} {reply.message}")
            return
        if reply.job is not None and wish.what == "submit":
            wish.job_id = reply.job.job_id
            self.accepted[reply.job.name] = reply.job.job_id
        if reply.job is not None and wish.what == "retry":
            self.accepted[reply.job.job_id] = reply.job.job_id
        self.on_answer(wish, reply)
        self._note(f"{wish.what} {wish.job_id} acknowledged")
        if wish.heard is None:
            self._truth.acknowledge(wish.what, wish.job_id, commits)

    def _check_tenant(self, wish: Wish, reply: Reply | Rejected) -> None:
        """A job of another tenant is as unknown as one that never was."""
        self._truth.looked["tenants"] += 1
        if wish.what == "stranger" and reply != no_job(wish.job_id):
            raise SimFailure(f"a stranger is told of {wish.job_id}: {reply}", wish.job_id)
        if isinstance(reply, Rejected):
            return
        if isinstance(wish.command, SubmitJob):
            tenant_id = wish.command.caller.tenant_id
            needed = [self.tenant_of(id) for id in wish.command.policy.depends_on]
            if any(one != tenant_id for one in needed):
                raise SimFailure("a job waits for one of another tenant", wish.job_id)
            if reply.job is not None and reply.job.tenant_id != tenant_id:
                raise SimFailure(f"a submit is answered with {reply.job.job_id}", reply.job.job_id)

    def _check_refused(self, wish: Wish) -> None:
        """A cancel is refused only for a job that is final, whatever else goes on with it."""
        job = self._coordinator.job(wish.job_id) if wish.what == "cancel" else None
        lost = self._truth.rewinds > 0
        if (
            job is not None
            and wish.refused == Reason.WRONG_STATUS
            and not job.is_final
            and not lost
        ):
            raise SimFailure(f"a cancel of {job.job_id}, {job.status}, is refused", job.job_id)
