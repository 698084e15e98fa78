"""A world from a seed: warm up, storm, calm, rest. Raises SimFailure where a property does not hold."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from random import Random

from coordinator.core.placement import place
from coordinator.core.records import JobStatus, Lease
from tests.sim import checkers
from tests.sim.agent import SimNode
from tests.sim.clock import MINUTE, SECOND, START_MS, LocalClock, Loop
from tests.sim.coordinator import SETTINGS, SimCoordinator
from tests.sim.doubts import DoubtedTakesNothing
from tests.sim.machine import copy_of
from tests.sim.messages import Answer, Call
from tests.sim.network import Network
from tests.sim.people import People
from tests.sim.plans import Plan, draw_plan
from tests.sim.quotas import LimitsHold
from tests.sim.situations import Situations
from tests.sim.storm import Storm
from tests.sim.swarm import Swarm, draw
from tests.sim.truth import Checker, SimFailure, Truth
from tests.sim.turns import RoomForOne
from tests.sim.wishes import ChangedAsAsked

REST_LIMIT_MS = 40 * MINUTE
STORY_LINES = 60
CLONES_MOST = 2


@dataclass(frozen=True, slots=True)
class Less:
    """What of a seed's world is left out, to see whether it still fails. 0 is as drawn."""

    without: tuple[str, ...] = ()  # faults
    nodes: int = 0
    jobs: int = 0
    storm_s: int = 0
    odd_clocks: bool = True

    def of(self, swarm: Swarm) -> Swarm:
        """What is left of a swarm."""
        nodes = self.nodes or len(swarm.node_devices)
        clock = swarm.coordinator_clock
        plain = replace(clock, offset_ms=0, rate=1.0)
        clocks = swarm.node_clocks[:nodes]
        return replace(
            swarm,
            faults={name: x for name, x in swarm.faults.items() if name not in self.without},
            node_devices=swarm.node_devices[:nodes],
            node_clocks=clocks if self.odd_clocks else (plain,) * len(clocks),
            coordinator_clock=clock if self.odd_clocks else plain,
            job_count=self.jobs or swarm.job_count,
            storm_ms=self.storm_s * SECOND or swarm.storm_ms,
        )


ALL = Less()


class World:
    """Everything that there is. `swarm` replaces the one that the seed draws."""

    def __init__(self, seed: int, less: Less = ALL, *, swarm: Swarm | None = None) -> None:
        self.seed = seed
        self.story: list[tuple[int, str]] = []
        self.swarm = swarm or less.of(draw(self._rng("swarm")))
        self.loop = Loop(self._rng("loop"))
        self.truth = Truth([])
        self.situations = Situations()
        self.is_away = False  # the coordinator, and nobody starts it
        self.network = Network(
            self.loop, self._rng("network"), self.swarm, seen=self.situations.fault
        )
        self.coordinator = SimCoordinator(
            self.loop,
            self._rng("coordinator"),
            self.swarm,
            truth=self.truth,
            note=self.note,
            seen=self.situations.fault,
        )
        self.people = People(
            self.loop,
            self._rng("people"),
            coordinator=self.coordinator,
            network=self.network,
            truth=self.truth,
            note=self.note,
        )
        self.plans = self._draw_plans()
        self.nodes = [self._node(index) for index in range(len(self.swarm.node_devices))]
        self.past_nodes: list[SimNode] = []  # of which a clone has the name now
        self.truth.checkers += [*self._checkers(), self.situations]
        self.storm = Storm(self, self._rng("fate"))

    def run(self) -> str:
        """Lives through it all; answers a digest of everything that happened."""
        self.warm_up()
        self.storm.begin()
        self.loop.run(START_MS + self.swarm.storm_ms)
        self.calm()
        self.rest("at rest")
        self._last_drain()
        return self.digest()

    def warm_up(self) -> None:
        """Everybody starts; the jobs come in their time."""
        rng = self._rng("start")
        self.coordinator.start()
        for node in self.nodes:
            self.loop.after(rng.randint(0, 5000), node.start_agent)
        for plan in self.plans.values():
            self.loop.after(plan.delay_ms, lambda plan=plan: self.people.submit(plan))  # type: ignore[misc]
        rng = self._rng("queues")
        for _ in range(rng.choice((0, 0, 1, 2, 4))):
            self.loop.after(rng.randint(0, self.swarm.storm_ms), lambda: self.people.set_queue(rng))

    def clone(self, index: int) -> None:
        """Starts a copy of a node's machine under the same name; it becomes the node."""
        if len(self.past_nodes) == CLONES_MOST:
            return
        self.truth.clones += 1
        original = self.nodes[index]
        self.past_nodes.append(original)
        clone = self._node(index, suffix=f"{'xy'[len(self.past_nodes) - 1]}")
        clone.machine.generation = original.machine.generation
        clone.machine.folders = copy_of(original.machine.folders)
        for folder in clone.machine.folders.values():
            self.truth.asked.lost.add((folder.lease.job_id, folder.lease.attempt))
        for attempt in original.attempts():
            self.truth.asked.lost.add(attempt)
        self.nodes[index] = clone
        clone.start_agent()

    def note(self, text: str) -> None:
        """Writes a line into the story."""
        self.story.append((self.loop.now_ms - START_MS, text))

    def digest(self) -> str:
        """Of the whole story; the same for a seed in every process."""
        lines = "\n".join(f"{at_ms} {text}" for at_ms, text in self.story)
        return hashlib.sha256(lines.encode()).hexdigest()

    def story_of(self, ids: tuple[str, ...]) -> list[str]:
        """The last lines that name one of the objects; of everything where none is named."""
        pattern = re.compile("|".join(rf"\b{re.escape(id)}\b" for id in ids) or ".")
        lines = [f"{at / 1000:9.3f}  {text}" for at, text in self.story if pattern.search(text)]
        return lines[-STORY_LINES:]

    # building

    def _rng(self, name: str) -> Random:
        return Random(f"{self.seed}/{name}")

    def _draw_plans(self) -> dict[str, Plan]:
        rng = self._rng("plans")
        types = sorted({kind for kind, _ in self.swarm.node_devices})
        plans = [
            draw_plan(rng, number, types=types, storm_ms=self.swarm.storm_ms)
            for number in range(self.swarm.job_count)
        ]
        return {plan.name: plan for plan in plans}

    def _node(self, index: int, *, suffix: str = "") -> SimNode:
        hands = self.swarm.node_clocks[index]
        return SimNode(
            f"n{index}",
            self.swarm.node_devices[index],
            loop=self.loop,
            rng=self._rng(f"n{index}{suffix}"),
            clock=LocalClock(self.loop, offset_ms=hands.offset_ms, rate=hands.rate),
            truth=self.truth,
            plan_of=lambda job_id: self.plans[self.people.names[job_id]],
            call=self._call,
            suffix=suffix,
        )

    def _checkers(self) -> list[Checker]:
        coordinator, people = self.coordinator, self.people
        return [
            checkers.NoDeviceTwice(),
            checkers.SavedBeforeStopped(self.truth),
            checkers.HeldUntilResumed(),
            checkers.OneChildPerRequest(self.truth),
            checkers.OneAttemptAtATime(self._is_orphan),
            checkers.LegalMoves(),
            checkers.CancelIsFinal(),
            checkers.DrainedStaysEmpty(),
            checkers.FreedByEvidence(),
            DoubtedTakesNothing(),
            checkers.GivenUpAfterProof(self.truth),
            checkers.FewAtOnce(),
            RoomForOne(),
            LimitsHold(),
            ChangedAsAsked(self.truth),
            checkers.GangsWhole(),
            checkers.NothingLost(coordinator),
            checkers.StoppedForAReason(self.truth, coordinator, self._is_orphan),
            checkers.HonestOutcomes(self.truth, self.plans),
            checkers.MemoryIsBounded(coordinator),
            checkers.EverythingRan(coordinator, people, people.names.__getitem__),
        ]

    def _is_orphan(self, lease: Lease) -> bool:
        """Whether the coordinator has lost sight of a lease for good, and knows of no such grant."""
        known = self.coordinator.lease(lease.lease_id)
        unknown = known is None or known.epoch != lease.epoch
        if unknown and self.truth.rewinds > 0:
            return True
        # of two machines with one name only one is heard, and which one may change
        lost = (lease.job_id, lease.attempt) in self.truth.asked.lost
        past = {id for node in self.past_nodes for id in node.device_ids}
        cloned = {node.node_id for node in self.past_nodes}
        return bool(past & set(lease.device_ids)) or (lost and lease.node_id in cloned)

    def _call(self, node: SimNode, call: Call) -> None:
        def answer(answer: Answer) -> None:
            self.network.send("answer", lambda: node.take(answer), node_id=node.node_id, up=False)

        self.network.send(
            "report", lambda: self.coordinator.sync(call, answer), node_id=node.node_id
        )

    # the calm

    def calm(self) -> None:
        """No new faults; what was broken is mended, and what hangs for ever is cancelled."""
        self.note("calm")
        self.storm.is_over = True
        self.is_away = False
        self.network.healed = True
        self.coordinator.faults = False
        self.coordinator.start()
        for node in self.past_nodes:
            node.lose_power(wipe=False)
        for node in self.nodes:
            node.thaw()
            node.bad_devices.clear()
            node.machine.power = not node.is_gone
            node.set_clock_right()
            node.start_agent()
        self.people.withdraw("queue")
        self.loop.run(self.loop.now_ms + 90 * SECOND)
        self.people.lift_limits()
        self.loop.run(self.loop.now_ms + 30 * SECOND)
        for node in self.nodes:
            node.start_agent()  # of two with one name, the one that stays
        for known in self.coordinator.nodes():
            self.people.enable(known.node_id)
        total = self.coordinator.store.reload(SETTINGS).state.total
        for job in self.coordinator.jobs():
            # one that was accepted before any node was known may fit none of them
            endless = self.plans[job.name].hangs or place(total, job.demand) is None
            if endless and not job.is_final:
                self.people.cancel(job.job_id)
        self._pick_up()

    def _pick_up(self) -> None:
        """Whatever was put aside is taken up again, or given up, now and later."""
        for job in self.coordinator.jobs():
            if job.status is JobStatus.PAUSED:
                self.people.resume(job.job_id)
            elif job.status is JobStatus.PREEMPTED:
                self.people.cancel(job.job_id)
        self.loop.after(MINUTE, self._pick_up)

    def rest(self, what: str) -> None:
        """Lets everything come to rest, then asks the checkers."""
        self.loop.run(self.loop.now_ms + REST_LIMIT_MS, self._at_rest)
        self.note(what)
        self.loop.run(self.loop.now_ms + 15 * SECOND)
        self.coordinator.check_replay()
        for going in self.truth.going.values():
            lease = going.lease
            raise SimFailure(f"{lease.lease_id} runs on for nobody", lease.lease_id, lease.job_id)
        for checker in self.truth.checkers:
            checker.settled()

    def _at_rest(self) -> bool:
        live = self.coordinator.store.live
        if any(isinstance(record, Lease) for record in live.values()) or self.people.waiting:
            return False
        if self.truth.going:  # some wait in the kernel for minutes, known to the coordinator or not
            return False
        return all(job.is_final for job in self.coordinator.jobs())

    def _last_drain(self) -> None:
        """With jobs running, one node is emptied by force, and then given back."""
        fresh = [replace(plan, name=f"q{plan.name}") for plan in list(self.plans.values())[:6]]
        for plan in fresh:
            obeying = "obeys" if plan.on_stop == "stuck" else plan.on_stop
            self.plans[plan.name] = replace(plan, hangs=False, fails=0, on_stop=obeying)
            self.people.submit(self.plans[plan.name])
        self.loop.run(self.loop.now_ms + 3 * SECOND)
        victim = self.nodes[0]
        self.people.drain(victim.node_id, force=True)
        self.loop.run(self.loop.now_ms + 2 * MINUTE)  # a grace to save, a grace to stop
        for lease in (x for x in self.truth.going.values() if x.lease.node_id == victim.node_id):
            raise SimFailure(f"{victim.node_id} is drained and not empty", lease.lease.job_id)
        self.people.enable(victim.node_id)
        self.rest("at rest again")
        for job in self.coordinator.jobs():
            if not job.is_final:
                raise SimFailure(f"{job.job_id} is {job.status} for ever", job.job_id)
