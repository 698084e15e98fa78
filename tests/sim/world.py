"""A world from a seed: warm up, storm, calm, rest. Raises SimFailure where a property does not hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from random import Random

from coordinator.core.placement import place
from coordinator.core.records import Lease
from tests.sim import checkers
from tests.sim.agent import SimNode
from tests.sim.clock import HOUR, MINUTE, SECOND, START_MS, Loop
from tests.sim.coordinator import SETTINGS, SimCoordinator
from tests.sim.messages import Answer, Call
from tests.sim.network import Network
from tests.sim.people import People
from tests.sim.plans import Plan, draw_plan
from tests.sim.situations import Situations
from tests.sim.swarm import draw
from tests.sim.truth import Checker, SimFailure, Truth

REST_LIMIT_MS = 40 * MINUTE
STORY_LINES = 60


class World:
    """Everything that there is, and the hand that shakes it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.story: list[tuple[int, str]] = []
        self.swarm = draw(self._rng("swarm"))
        self.loop = Loop(self._rng("loop"))
        self.truth = Truth([])
        self.network = Network(self.loop, self._rng("network"), self.swarm)
        self.coordinator = SimCoordinator(
            self.loop, self._rng("coordinator"), self.swarm, truth=self.truth, note=self.note
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
        self.situations = Situations()
        self.truth.checkers += [*self._checkers(), self.situations]
        self._fate = self._rng("fate")
        self._storm = True

    def run(self) -> str:
        """Lives through it all; answers a digest of everything that happened."""
        self.coordinator.start()
        for node in self.nodes:
            self.loop.after(self._fate.randint(0, 5000), node.start_agent)
        for plan in self.plans.values():
            self.loop.after(plan.delay_ms, lambda plan=plan: self.people.submit(plan))  # type: ignore[misc]
        self._schedule_faults()
        self.loop.run(START_MS + self.swarm.storm_ms)
        self._calm()
        self._rest("at rest")
        self._last_drain()
        return self.digest()

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

    def _node(self, index: int) -> SimNode:
        return SimNode(
            f"n{index}",
            self.swarm.node_devices[index],
            loop=self.loop,
            rng=self._rng(f"n{index}"),
            truth=self.truth,
            plans=self.plans,
            job_names=self.people.names.__getitem__,
            call=self._call,
        )

    def _checkers(self) -> list[Checker]:
        coordinator, people = self.coordinator, self.people
        return [
            checkers.NoDeviceTwice(),
            checkers.OneAttemptAtATime(),
            checkers.LegalMoves(),
            checkers.CancelIsFinal(),
            checkers.DrainedStaysEmpty(),
            checkers.FreedByEvidence(),
            checkers.GangsWhole(),
            checkers.NothingLost(coordinator),
            checkers.StoppedForAReason(self.truth, coordinator),
            checkers.HonestOutcomes(self.truth, self.plans),
            checkers.MemoryIsBounded(coordinator),
            checkers.EverythingRan(coordinator, people, people.names.__getitem__),
        ]

    def _call(self, node: SimNode, call: Call) -> None:
        def answer(answer: Answer) -> None:
            self.network.send(lambda: node.take(answer), node_id=node.node_id, up=False)

        self.network.send(lambda: self.coordinator.sync(call, answer), node_id=node.node_id)

    # the storm

    def _schedule_faults(self) -> None:
        swarm = self.swarm
        self._every(swarm.crash_every_ms, self._crash_coordinator)
        self._every(swarm.partition_every_ms, self._cut)
        self._every(swarm.agent_dies_every_ms, self._kill_agent)
        self._every(swarm.node_cycles_every_ms, self._cycle_node)
        self._every(swarm.drain_every_ms, self._drain)
        self._every(swarm.device_trouble_every_ms, self._device_trouble)
        if swarm.cancel:
            self._every(int(20 * SECOND / swarm.cancel / 4), self._cancel)
        # whatever crashed it, somebody starts it again
        self._every(5 * SECOND, self._watchdog)

    def _every(self, period_ms: int, act: Callable[[], None]) -> None:
        if not period_ms:
            return

        def again() -> None:
            if self._storm:
                act()
                self.loop.after(self._fate.randint(1, 2 * period_ms), again)

        self.loop.after(self._fate.randint(1, 2 * period_ms), again)

    def _watchdog(self) -> None:
        if not self.coordinator.up and self._fate.random() < 0.5:
            self.coordinator.start()

    def _crash_coordinator(self) -> None:
        self.coordinator.crash()
        if self.swarm.long_outage and self._fate.random() < 0.3:
            # time passes for everybody; only the coordinator is away
            self.note("a long outage")
            self.loop.run(self.loop.now_ms + HOUR // 4, lambda: self.coordinator.up)

    def _cut(self) -> None:
        node = self._fate.choice(self.nodes)
        self.network.cut[node.node_id] = self._fate.choice((1, 2, 3))
        self.note(f"{node.node_id} cut off {self.network.cut[node.node_id]}")
        length_ms = self._fate.choice((2, 15, 40, 120)) * SECOND
        self.loop.after(length_ms, lambda: self.network.mend(node.node_id))

    def _kill_agent(self) -> None:
        node = self._fate.choice(self.nodes)
        self.note(f"{node.node_id} agent dies")
        node.kill_agent()
        self.loop.after(self._fate.choice((10, 1000, 30_000)), node.start_agent)

    def _cycle_node(self) -> None:
        node = self._fate.choice(self.nodes)
        if not node.power:
            return
        wipe = self._fate.random() < 0.6
        self.note(f"{node.node_id} power off{', wiped' if wipe else ''}")
        node.cycle_power(wipe=wipe)
        self.loop.after(self._fate.choice((1, 5, 60)) * SECOND, node.power_on)

    def _drain(self) -> None:
        node_id = self._fate.choice(self.nodes).node_id
        match self._fate.choice(("plain", "force", "deadline", "enable", "enable")):
            case "plain":
                self.people.drain(node_id, force=False)
            case "force":
                self.people.drain(node_id, force=True)
            case "deadline":
                deadline_ms = self.loop.now_ms + self._fate.choice((1, 20)) * SECOND
                self.people.drain(node_id, force=False, deadline_ms=deadline_ms)
            case _:
                self.people.enable(node_id)

    def _device_trouble(self) -> None:
        node = self._fate.choice(self.nodes)
        device = self._fate.randrange(self.swarm.node_devices[self.nodes.index(node)][1])
        node.bad_devices ^= {device}

    def _cancel(self) -> None:
        accepted = sorted(self.people.accepted.values())
        if accepted and self._fate.random() < 0.5:
            self.people.cancel(self._fate.choice(accepted))

    # the calm

    def _calm(self) -> None:
        self.note("calm")
        self._storm = False
        self.network.healed = True
        self.network.cut.clear()
        self.coordinator.faults = False
        self.coordinator.start()
        for node in self.nodes:
            node.bad_devices.clear()
            node.power = True
            node.start_agent()
        self.loop.run(self.loop.now_ms + 30 * SECOND)
        for known in self.coordinator.nodes():
            self.people.enable(known.node_id)
        total = self.coordinator.store.reload(SETTINGS).state.total
        for job in self.coordinator.jobs():
            # one that was accepted before any node was known may fit none of them
            endless = self.plans[job.name].hangs or place(total, job.demand) is None
            if endless and not job.is_final:
                self.people.cancel(job.job_id)

    def _rest(self, what: str) -> None:
        """Lets everything come to rest, then asks the checkers."""
        self.loop.run(self.loop.now_ms + REST_LIMIT_MS, self._at_rest)
        self.note(what)
        self.loop.run(self.loop.now_ms + 15 * SECOND)
        self.coordinator.check_replay()
        for checker in self.truth.checkers:
            checker.settled()

    def _at_rest(self) -> bool:
        live = self.coordinator.store.live
        if any(isinstance(record, Lease) for record in live.values()) or self.people.waiting:
            return False
        return all(job.is_final for job in self.coordinator.jobs())

    def _last_drain(self) -> None:
        """With jobs running, one node is emptied by force, and then given back."""
        fresh = [replace(plan, name=f"q{plan.name}") for plan in list(self.plans.values())[:6]]
        for plan in fresh:
            self.plans[plan.name] = replace(plan, hangs=False, fails=0)
            self.people.submit(self.plans[plan.name])
        self.loop.run(self.loop.now_ms + 3 * SECOND)
        victim = self.nodes[0]
        self.people.drain(victim.node_id, force=True)
        self.loop.run(self.loop.now_ms + MINUTE)
        for lease in (x for x in self.truth.going.values() if x.lease.node_id == victim.node_id):
            raise SimFailure(f"{victim.node_id} is drained and not empty", lease.lease.job_id)
        self.people.enable(victim.node_id)
        self._rest("at rest again")
        for job in self.coordinator.jobs():
            if not job.is_final:
                raise SimFailure(f"{job.job_id} is {job.status} for ever", job.job_id)
