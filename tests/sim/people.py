"""Clients and operators: they ask, hear nothing, and ask again with the same request id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from coordinator.core.commands import (
    Caller,
    CancelJob,
    Command,
    DrainNode,
    EnableNode,
    RemoveNode,
    SubmitJob,
)
from coordinator.core.decision import Rejected, Reply
from tests.sim.clock import SECOND, Loop
from tests.sim.coordinator import SimCoordinator
from tests.sim.network import Network
from tests.sim.plans import Plan
from tests.sim.truth import Truth

TENANT = "acme"
PATIENCE_MS = 5 * SECOND
TRIES = 40


@dataclass(slots=True)
class Wish:
    """Something that somebody asks for until there is an answer."""

    what: str  # submit, cancel, drain, enable
    number: int
    command: Command
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
        self._job_ids = 0

    def submit(self, plan: Plan) -> None:
        """Somebody submits a job."""
        policy = plan.policy
        if plan.wants_dependency and self.accepted:
            needed = self._rng.choice(sorted(self.accepted.values()))
            policy = replace(policy, depends_on=(needed,))
        if self._rng.random() < 0.1:
            policy = replace(policy, start_after_ms=self._coordinator.clock.now_ms() + 40 * SECOND)
        command = SubmitJob(
            caller=self._caller("submit"),
            job_id="",
            name=plan.name,
            demand=plan.demand,
            policy=policy,
            document=b"{}",
            priority=plan.priority,
        )
        self._wish("submit", command)

    def cancel(self, job_id: str) -> None:
        """Somebody cancels a job."""
        self._truth.asked.cancels.add(job_id)
        self._wish("cancel", CancelJob(caller=self._caller("cancel"), job_id=job_id), job_id)

    def drain(self, node_id: str, *, force: bool, deadline_ms: int = 0) -> None:
        """An operator drains a node."""
        if force or deadline_ms:
            self._truth.asked.emptied[node_id] = self._loop.now_ms
        command = DrainNode(
            caller=self._caller("drain"), node_id=node_id, force=force, deadline_ms=deadline_ms
        )
        self._wish("drain", command, node_id)

    def enable(self, node_id: str) -> None:
        """An operator lets a node take jobs again."""
        self._wish("enable", EnableNode(caller=self._caller("enable"), node_id=node_id), node_id)

    def remove(self, node_id: str) -> Wish:
        """An operator removes a node that is switched off."""
        command = RemoveNode(caller=self._caller("remove"), node_id=node_id)
        return self._wish("remove", command, node_id)

    @property
    def waiting(self) -> bool:
        """Whether somebody still waits for an answer."""
        return any(not wish.answered for wish in self.wishes)

    def _caller(self, what: str) -> Caller:
        request_id = f"r{len(self.wishes)}"
        return Caller(tenant_id=TENANT, user_id=what, request_id=request_id, digest=request_id)

    def _wish(self, what: str, command: Command, id: str = "") -> Wish:
        wish = Wish(what, len(self.wishes), command, job_id=id)
        self.wishes.append(wish)
        self._ask(wish)
        return wish

    def _ask(self, wish: Wish) -> None:
        if wish.answered:
            return
        wish.tries += 1
        command = wish.command
        if isinstance(command, SubmitJob):
            # as a servicer does: a new id for each call; only the request id is the same
            self._job_ids += 1
            job_id = f"j{self._job_ids}"
            self.names[job_id] = command.name
            command = replace(command, job_id=job_id)
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
            found = [
                (job_id, self._coordinator.store.history[job_id].status.value)
                for job_id in command.policy.depends_on
                if job_id in self._coordinator.store.history
            ]
            return replace(command, finished_dependencies=tuple(found))
        return command

    def _hear(self, wish: Wish, reply: Reply | Rejected, commits: int) -> None:
        if wish.answered:
            return
        wish.answered = True
        if isinstance(reply, Rejected):
            wish.refused = reply.reason
            self._note(f"{wish.what} {wish.job_id} refused: {reply.reason} {reply.message}")
            return
        if reply.job is not None and wish.what == "submit":
            wish.job_id = reply.job.job_id
            self.accepted[reply.job.name] = reply.job.job_id
        self._note(f"{wish.what} {wish.job_id} acknowledged")
        for checker in self._truth.checkers:
            checker.acknowledged(wish.what, wish.job_id, commits)
