"""The hand that shakes the world: every fault that comes again and again, and every wish of admins."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from coordinator.core.health import HealthState
from coordinator.core.records import Job, JobStatus, Lease, Pairs
from node_agent.core.leases import Fault
from tests.sim.agent import SimNode
from tests.sim.clock import DAY, MINUTE, SECOND
from tests.sim.images import OUT_OF_MEMORY, Registry, lose_container
from tests.sim.machine import NOT_TOLD
from tests.sim.network import DOES_NOT_HEAR, NOT_HEARD
from tests.sim.swarm import PERIODS_S
from tests.sim.topology import spot

if TYPE_CHECKING:
    from tests.sim.world import World

CUTS_MS = (2 * SECOND, 20 * SECOND, 60 * SECOND, 10 * MINUTE)
MOST_BATCHES_LOST = 8
HELD = (JobStatus.PAUSED, JobStatus.CHECKPOINTING)
AGAIN = (JobStatus.FAILED, JobStatus.PREEMPTED)


class Storm:
    """Does what the swarm of a world has drawn, until it is over."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self.is_over = False

    def begin(self) -> None:
        """Schedules everything that is on."""
        acts: dict[str, Callable[[], None]] = {
            "coordinator crashes": self._coordinator_crashes,
            "coordinator stalls": self._coordinator_stalls,
            "coordinator away": self._coordinator_away,
            "coordinator clock jumps": self._coordinator_clock_jumps,
            "batches lost": self._batches_lost,
            "node not heard": lambda: self._cut("node not heard", NOT_HEARD),
            "node does not hear": lambda: self._cut("node does not hear", DOES_NOT_HEAR),
            "node cut off": lambda: self._cut("node cut off", NOT_HEARD | DOES_NOT_HEAR),
            "agent dies": self._agent_dies,
            "agent frozen": self._agent_frozen,
            "agent reinstalled": self._agent_reinstalled,
            "all agents reconnect": self._all_agents_reconnect,
            "node clock jumps": self._node_clock_jumps,
            "power cut": lambda: self._power_cut("power cut", wipe=False),
            "power cut, disk lost": lambda: self._power_cut("power cut, disk lost", wipe=True),
            "node cloned": self._node_cloned,
            "node gone": self._node_gone,
            "device trouble": self._device_trouble,
            "drain": lambda: self._drain("drain", force=False),
            "drain by force": lambda: self._drain("drain by force", force=True),
            "drain with a deadline": self._drain_with_a_deadline,
            "enable": self._enable,
            "cancel": lambda: self._ask("cancel", self._world.people.cancel),
            "pause": lambda: self._ask("pause", self._world.people.pause),
            "preempt": lambda: self._ask("preempt", self._world.people.preempt),
            "stranger": lambda: self._ask("stranger", self._world.people.stranger),
            "resume": lambda: self._ask("resume", self._world.people.resume, HELD),
            "retry": lambda: self._ask("retry", self._world.people.retry, AGAIN),
            "change": lambda: self._ask("change", self._world.people.change),
        }
        for fault in PERIODS_S:
            period_ms = int(self._world.swarm.chance(fault))
            if period_ms:
                self._every(period_ms, acts[fault])
        # whatever crashed it, somebody starts it again
        self._every(5 * SECOND, self._watchdog)

    def _every(self, period_ms: int, act: Callable[[], None]) -> None:
        def again() -> None:
            if not self.is_over:
                act()
                self._world.loop.after(self._rng.randint(1, 2 * period_ms), again)

        self._world.loop.after(self._rng.randint(1, 2 * period_ms), again)

    def _fault(self, fault: str, node: SimNode | None = None) -> None:
        """Writes a fault down, with the leases that it meets."""
        node_id = node.node_id if node is not None else ""
        self._world.note(f"{node_id} {fault}".strip())
        self._world.situations.fault(fault, *self._world.coordinator.lease_states(node_id))

    def _any_node(self) -> SimNode:
        return self._rng.choice(self._world.nodes)

    def _after(self, choices_s: tuple[float, ...], act: Callable[[], None]) -> None:
        self._world.loop.after(int(self._rng.choice(choices_s) * SECOND), act)

    # the coordinator

    def _watchdog(self) -> None:
        coordinator = self._world.coordinator
        if not coordinator.up and not self._world.is_away and self._rng.random() < 0.5:
            coordinator.start()

    def _coordinator_crashes(self) -> None:
        self._fault("coordinator crashes")
        self._world.coordinator.crash()

    def _coordinator_stalls(self) -> None:
        self._fault("coordinator stalls")
        self._world.coordinator.stall(60 * SECOND)

    def _coordinator_away(self) -> None:
        """It is gone for a quarter of an hour; time passes for everybody else."""
        self._fault("coordinator away")
        self._world.coordinator.crash()
        self._world.is_away = True

        def back() -> None:
            self._world.is_away = False

        self._after((60, 900), back)

    def _coordinator_clock_jumps(self) -> None:
        self._fault("coordinator clock jumps")
        self._world.coordinator.jump(self._rng.choice((-DAY, -MINUTE, MINUTE, DAY)))

    def _batches_lost(self) -> None:
        self._fault("batches lost")
        self._world.coordinator.lose_batches(self._rng.randint(1, MOST_BATCHES_LOST))

    # nodes

    def _cut(self, fault: str, ways: int) -> None:
        node = self._any_node()
        self._fault(fault, node)
        self._world.network.cut(node.node_id, ways, length_ms=self._rng.choice(CUTS_MS))

    def _agent_dies(self) -> None:
        node = self._any_node()
        self._fault("agent dies", node)
        node.kill_agent()
        self._after((0.01, 1, 30), node.start_agent)

    def _agent_frozen(self) -> None:
        node = self._any_node()
        self._fault("agent frozen", node)
        node.freeze()
        self._after((1, 15, 60), node.thaw)

    def _agent_reinstalled(self) -> None:
        node = self._any_node()
        if node.machine.power and not node.is_ahead:
            self._fault("agent reinstalled", node)
            node.reinstall()
            self._after((1, 10), node.start_agent)

    def _all_agents_reconnect(self) -> None:
        self._fault("all agents reconnect")
        self._world.coordinator.crash()
        for node in self._world.nodes:
            node.kill_agent()
            self._world.loop.after(2 * SECOND, node.start_agent)
        self._world.loop.after(2 * SECOND, self._watchdog)

    def _node_clock_jumps(self) -> None:
        node = self._any_node()
        self._fault("node clock jumps", node)
        node.clock.offset_ms += self._rng.choice((-DAY, -MINUTE, MINUTE, DAY))

    def _power_cut(self, fault: str, *, wipe: bool) -> None:
        node = self._any_node()
        if node.machine.power and not (wipe and node.is_ahead) and not node.is_gone:
            self._fault(fault, node)
            node.lose_power(wipe=wipe)
            self._after((1, 5, 60), node.power_on)

    def _node_cloned(self) -> None:
        """Another machine starts from a copy of a node's disk, under the same name."""
        index = self._rng.randrange(len(self._world.nodes))
        node = self._world.nodes[index]
        if node.machine.power and not node.is_gone and not node.is_ahead:
            self._fault("node cloned", node)
            self._world.clone(index)

    def _node_gone(self) -> None:
        """A machine is switched off; an admin who knows it removes the node. Later it is back."""
        node = self._any_node()
        names = [past.node_id for past in self._world.past_nodes]
        if not node.machine.power or node.node_id in names:
            return
        self._fault("node gone", node)
        node.lose_power(wipe=False)
        node.is_gone = True
        self._world.loop.after(
            self._rng.choice((1, 25, 70)) * SECOND, lambda: self._remove(node, tries=3)
        )

    def _remove(self, node: SimNode, *, tries: int) -> None:
        wish = self._world.people.remove(node.node_id)

        def ask_again() -> None:
            if not wish.answered:
                self._world.loop.after(SECOND, ask_again)
            elif wish.refused and tries:
                self._world.loop.after(10 * SECOND, lambda: self._remove(node, tries=tries - 1))
            else:
                node.is_gone = False
                node.power_on()

        ask_again()

    def _device_trouble(self) -> None:
        node = self._any_node()
        self._fault("device trouble", node)
        node.bad_devices ^= {self._rng.randrange(len(node.device_ids))}

    # wishes

    def _drain(self, fault: str, *, force: bool) -> None:
        node = self._any_node()
        self._fault(fault, node)
        self._world.people.drain(node.node_id, force=force)

    def _drain_with_a_deadline(self) -> None:
        node = self._any_node()
        self._fault("drain with a deadline", node)
        deadline_ms = self._world.coordinator.clock.now_ms() + self._rng.choice((1, 20)) * SECOND
        self._world.people.drain(node.node_id, force=False, deadline_ms=deadline_ms)

    def moves(self, rng: Random) -> None:
        """Some nodes are drained so that their jobs move; sooner or later they are given back."""
        for _ in range(rng.choice((0, 0, 0, 1, 2, 3))):
            index = rng.randrange(len(self._world.nodes))
            at_ms = rng.randint(0, self._world.swarm.storm_ms)
            deadline_s = rng.choice((0, 0, 60))
            back_ms = at_ms + rng.choice((1, 30, 200)) * SECOND
            self._world.loop.after(at_ms, partial(self._move, index, deadline_s))
            self._world.loop.after(back_ms, partial(self._give_back, index))

    def rolls(self, rng: Random) -> None:
        """Nodes are drained a few at a time, and given back."""
        for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
            at_ms = rng.randint(0, self._world.swarm.storm_ms)
            self._world.loop.after(at_ms, partial(self._roll, rng))
            for index in range(len(self._world.nodes)):
                back_ms = at_ms + rng.randint(10, 120) * SECOND
                self._world.loop.after(back_ms, partial(self._give_back, index))

    def wears(self, rng: Random) -> None:
        """Devices go bad, and operators say what they think of it."""
        for _ in range(rng.choice((0, 0, 1, 3, 8))):
            at_ms = rng.randint(0, self._world.swarm.storm_ms)
            self._world.loop.after(at_ms, partial(self._wear, rng.randrange(1 << 16)))
        for _ in range(rng.choice((0, 0, 0, 1, 3))):
            at_ms = rng.randint(0, self._world.swarm.storm_ms)
            self._world.loop.after(at_ms, partial(self._trust, Random(rng.random())))

    def _wear(self, number: int) -> None:
        node = self._world.nodes[number % len(self._world.nodes)]
        if not self.is_over:
            self._fault("bad device", node)
            node.wear.see()

    def _trust(self, rng: Random) -> None:
        node = rng.choice(self._world.nodes)
        if not self.is_over:
            self._fault("health set", node)
            state = rng.choice(
                (HealthState.HEALTHY, HealthState.PROBATION, HealthState.QUARANTINED)
            )
            device_id = rng.choice(("", *node.device_ids))
            self._world.people.trust(node.node_id, state, device_id)

    def maintenance(self, rng: Random) -> None:
        """Nodes are planned to be out for a while; of some the plan is given up."""
        for _ in range(rng.choice((0, 0, 0, 1, 2, 3))):
            index = rng.randrange(len(self._world.nodes))
            at_ms = rng.randint(0, self._world.swarm.storm_ms)
            self._world.loop.after(at_ms, partial(self._plan, rng, index))
            if rng.random() < 0.3:
                back_ms = at_ms + rng.choice((10, 60, 150)) * SECOND
                self._world.loop.after(back_ms, partial(self._give_back, index))

    def regrets(self, rng: Random) -> None:
        """Some jobs for which others are asked to give way are cancelled, or held."""
        for at_ms in range(0, self._world.swarm.storm_ms, SECOND):
            self._world.loop.after(at_ms, partial(self._regret, rng))

    def relocations(self, rng: Random) -> None:
        """Machines are switched off, and on again in another rack, where there are any."""
        for _ in range(rng.choice((1, 2, 4)) if any(self._world.spots) else 0):
            index = rng.randrange(len(self._world.nodes))
            at_ms = rng.randint(0, self._world.swarm.storm_ms)
            self._world.loop.after(at_ms, partial(self._relocate, index, spot(rng)))

    def containers(self, rng: Random, registry: Registry | None) -> None:
        """What may become of images, of the engines that run them, and of containers."""
        acts: tuple[Callable[[], None], ...] = ()
        if registry is not None:
            acts = (
                partial(self._image_moves, registry),
                partial(self._registry_away, rng, registry),
                partial(self._engine_away, rng),
                partial(self._container_ends, rng, "container removed", NOT_TOLD),
                partial(self._container_ends, rng, "out of memory", OUT_OF_MEMORY),
            )
        for act in acts:
            for _ in range(rng.choice((0, 1, 2, 5))):
                self._world.loop.after(rng.randint(0, self._world.swarm.storm_ms), act)

    def _image_moves(self, registry: Registry) -> None:
        """The name stands for something else from now on."""
        self._fault("image moves")
        registry.move()

    def _registry_away(self, rng: Random, registry: Registry) -> None:
        if self.is_over or registry.is_away:
            return
        self._fault("registry away")
        registry.is_away = True

        def back() -> None:
            registry.is_away = False

        self._world.loop.after(rng.choice((5, 60)) * SECOND, back)

    def _engine_away(self, rng: Random) -> None:
        """What runs containers is started anew: it answers nobody, and what runs goes on."""
        node = rng.choice(self._world.nodes)
        if not self.is_over:
            self._fault("engine away", node)
            away_ms = rng.choice((2, 20, 90)) * SECOND
            node.machine.engine_back_ms = self._world.loop.now_ms + away_ms

    def _container_ends(self, rng: Random, fault: str, how: Fault) -> None:
        node = rng.choice(self._world.nodes)
        if not self.is_over and lose_container(node.machine, rng, fault=how):
            self._fault(fault, node)

    def _relocate(self, index: int, labels: Pairs) -> None:
        node = self._world.nodes[index]
        if self.is_over or not node.machine.power or node.is_gone:
            return
        self._fault("node relocated", node)
        node.lose_power(wipe=False)
        node.labels = labels
        self._after((1, 5, 60), node.power_on)

    def _regret(self, rng: Random) -> None:
        accepted = sorted(self._world.people.accepted.values())
        known = map(self._world.coordinator.job, accepted)
        waiting = [x for x in known if x and x.status is JobStatus.QUEUED and x.room]
        if not waiting or self.is_over or rng.random() < 0.5:
            return
        job, what = rng.choice(waiting), rng.choice(("cancel", "pause"))
        self._world.situations.fault(what, f"job {job.status}", *self._leases_of(job))
        people = self._world.people
        (people.cancel if what == "cancel" else people.pause)(job.job_id)

    def _plan(self, rng: Random, index: int) -> None:
        if self.is_over:
            return
        node = self._world.nodes[index]
        self._fault("maintenance", node)
        from_ms = self._world.coordinator.clock.now_ms() + rng.choice((0, 20, 60)) * SECOND
        lasts_ms = rng.choice((30, 90)) * SECOND
        how = rng.choice(("waits", "move", "force"))
        self._world.people.maintain(
            node.node_id,
            from_ms=from_ms,
            until_ms=from_ms + lasts_ms if rng.random() < 0.8 else 0,
            force=how == "force",
            move=how == "move",
        )

    def _roll(self, rng: Random) -> None:
        if not self.is_over:
            self._fault("rolling drain")
            self._world.people.roll(rng, [node.node_id for node in self._world.nodes])

    def _move(self, index: int, deadline_s: int) -> None:
        node = self._world.nodes[index]
        if not self.is_over:
            self._fault("drain that moves", node)
            by_ms = self._world.coordinator.clock.now_ms() + deadline_s * SECOND
            deadline_ms = by_ms if deadline_s else 0
            self._world.people.drain(node.node_id, move=True, deadline_ms=deadline_ms)

    def _give_back(self, index: int) -> None:
        if not self.is_over:
            self._world.people.enable(self._world.nodes[index].node_id)

    def _enable(self) -> None:
        node = self._any_node()
        self._fault("enable", node)
        self._world.people.enable(node.node_id)

    def _ask(
        self, what: str, wish: Callable[[str], None], statuses: Container[str] = tuple(JobStatus)
    ) -> None:
        """Somebody wishes something of any job, or of one that the wish is made for."""
        accepted = sorted(self._world.people.accepted.values())
        known = [job for job in map(self._world.coordinator.job, accepted) if job is not None]
        fitting = [job for job in known if job.status in statuses]
        if not fitting:
            return
        job = self._rng.choice(fitting)
        self._world.situations.fault(what, f"job {job.status}", *self._leases_of(job))
        wish(job.job_id)

    def _leases_of(self, job: Job) -> list[str]:
        return [
            f"lease {record.state.name}"
            for record in self._world.coordinator.store.live.values()
            if isinstance(record, Lease) and record.job_id == job.job_id
        ]
