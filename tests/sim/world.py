"""A world from a seed: warm up, storm, calm, rest. Raises SimFailure where a property does not hold."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from structlog.testing import capture_logs

from coordinator.core.decision import Event
from coordinator.core.health import SOUND, HealthState
from coordinator.core.placement import place
from coordinator.core.records import JobStatus, Lease
from tests.sim import checkers
from tests.sim.accounts import LedgerIsExact
from tests.sim.agent import SimNode
from tests.sim.aging import RaisedInTime, ages
from tests.sim.audience import Audience
from tests.sim.batches import BatchesWhole
from tests.sim.cadences import WORLDS as CADENCE_WORLDS
from tests.sim.cadences import NearIsAwaited, calmer, hurry, with_cadences
from tests.sim.care import OutTakesNothing
from tests.sim.claims import NobodyDelaysAClaim
from tests.sim.clock import MINUTE, SECOND, START_MS, LocalClock, Loop
from tests.sim.coordinator import SimCoordinator
from tests.sim.doubts import DoubtedTakesNothing, SilenceIsLong
from tests.sim.hangs import HungIsHung, never_ends, with_hangs
from tests.sim.images import WORLDS as IMAGE_WORLDS
from tests.sim.images import Registry, SameImage, Shelf, with_images
from tests.sim.keys import KeysStay
from tests.sim.machine import copy_of
from tests.sim.messages import Answer, Call
from tests.sim.moves import WORLDS as GAP_WORLDS
from tests.sim.moves import MovedSafely, let_preempt, with_equal_nodes, with_gaps
from tests.sim.nearness import WORLDS as SLOW_WORLDS
from tests.sim.nearness import DataIsNear, rate_of
from tests.sim.network import Network
from tests.sim.offices import Offices
from tests.sim.output import Output
from tests.sim.people import People
from tests.sim.plans import Plan, draw_plan
from tests.sim.quotas import LimitsHold, QueuesAsSet
from tests.sim.readers import Place
from tests.sim.rolls import FewOut
from tests.sim.rulings import WhyIsKept
from tests.sim.silence import Silence
from tests.sim.situations import Situations
from tests.sim.storm import Storm
from tests.sim.stream_checkers import LinesOnce
from tests.sim.swarm import PLENTY, Swarm, draw, partition
from tests.sim.tasks import Burial
from tests.sim.topology import KeptTogether, spots, with_bonds
from tests.sim.trace import show_event
from tests.sim.truth import Checker, SimFailure, Truth
from tests.sim.turns import RoomForOne
from tests.sim.wanted import EarliestFirst, NotBeforeItsTime, with_dates
from tests.sim.windows import NobodyOutlivesAWindow
from tests.sim.wire import Wire
from tests.sim.wishes import ChangedAsAsked, HeldUntilResumed, OneChildPerRequest

REST_LIMIT_MS = 40 * MINUTE
STORY_LINES = 60
MEMORY = Path("/dev/shm")  # where disks are fast
CLONES_MOST = 2


@dataclass(frozen=True, slots=True)
class Less:
    """What of a seed's world is left out, to see whether it still fails. 0 is as drawn."""

    without: tuple[str, ...] = ()  # faults
    nodes: int = 0
    jobs: int = 0
    storm_s: int = 0
    odd_clocks: bool = True
    prints: bool = True
    bare: bool = False  # only single jobs are asked for, and none names an image

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
            prints=swarm.prints and self.prints,
        )


ALL = Less()


class World:
    """Everything that there is. `swarm` replaces the one that the seed draws."""

    def __init__(self, seed: int, less: Less = ALL, *, swarm: Swarm | None = None) -> None:
        self.seed = seed
        self._story: list[tuple[int, str | Event]] = []
        drawn = partition(draw(self._rng("swarm")), self._rng("partitions"))
        self._cadences = self._rng("cadences")
        self._has_cadences = not self._cadences.randrange(CADENCE_WORLDS)
        if self._has_cadences:
            drawn = calmer(drawn, self._cadences)
        self._gaps = self._rng("gaps")
        self._has_gaps = not self._gaps.randrange(GAP_WORLDS) and not self._has_cadences
        if self._has_gaps:
            drawn = with_equal_nodes(drawn, self._gaps)
        self.swarm = swarm or less.of(drawn)
        self.loop = Loop(self._rng("loop"))
        self.truth = Truth([])
        self.situations = Situations()
        self.burial = Burial()
        self._wires = self._rng("wires")
        self._over = ExitStack()
        self._disks = ""
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
            burial=self.burial,
            settings=ages(self._rng("ages")),
        )
        self.people = People(
            self.loop,
            self._rng("people"),
            coordinator=self.coordinator,
            network=self.network,
            truth=self.truth,
            note=self.note,
        )
        self.spots = spots(self._rng("topology"), len(self.swarm.node_devices))
        self._images = self._rng("images")
        has_images = not self._images.randrange(IMAGE_WORLDS) and not less.bare
        self.registry = Registry() if has_images else None
        self._fetches_slowly = not self._rng("fetching").randrange(SLOW_WORLDS)
        self.plans = self._draw_plans()
        self.nodes = [self._node(index) for index in range(len(self.swarm.node_devices))]
        self.past_nodes: list[SimNode] = []  # of which a clone has the name now
        self.truth.add([*self._checkers(), self.situations])
        if self.swarm.prints:
            self.truth.add([self._audience()])
        self.storm = Storm(self, self._rng("fate"))
        self.offices = Offices(self, self._rng("offices"), is_closed=less.bare)

    def run(self) -> None:
        """Lives through it all."""
        try:
            self.warm_up()
            self.storm.begin()
            self.loop.run(START_MS + self.swarm.storm_ms)
            self.calm()
            self.rest("at rest")
            self._last_drain()
        finally:
            self.close()

    def close(self) -> None:
        """The world is over."""
        self._over.close()

    def warm_up(self) -> None:
        """Everybody starts; the jobs come in their time."""
        random.seed(f"{self.seed}/jitter")  # of what draws by itself
        self._over.enter_context(capture_logs())
        self._over.callback(self.burial.close)
        rng = self._rng("start")
        self.coordinator.start()
        for node in self.nodes:
            self.loop.after(rng.randint(0, 5000), node.start_agent)
        self.offices.submit(list(self.plans.values()))
        self.storm.moves(self._rng("moves"))
        self.storm.rolls(self._rng("rolls"))
        self.storm.wears(self._rng("wear"))

        self.storm.maintenance(self._rng("maintenance"))
        self.storm.relocations(self._rng("relocations"))
        self.storm.regrets(self._rng("regrets"))
        self.offices.begin()
        if self._has_cadences:
            hurry(self, self._rng("hurry"))
        if self._has_gaps:
            let_preempt(self, self._rng("order"))
        self.storm.containers(self._rng("containers"), self.registry)
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
        original.machine.output.copy_to(clone.machine.output)
        original.machine.output.is_past = True
        clone.machine.folders = copy_of(original.machine.folders)
        for folder in clone.machine.folders.values():
            for printed in self.truth.printed_by(folder.key):
                printed.is_mixed = True
            self.truth.asked.lost.add((folder.lease.job_id, folder.lease.attempt))
        for attempt in original.attempts():
            self.truth.asked.lost.add(attempt)
        self.nodes[index] = clone
        clone.start_agent()

    def note(self, what: str | Event) -> None:
        """Writes a line into the story; a fact is told in words only where somebody reads them."""
        self._story.append((self.loop.now_ms - START_MS, what))

    @property
    def story(self) -> list[tuple[int, str]]:
        """Everything that happened, and after how many ms."""
        return [
            (at_ms, what if isinstance(what, str) else show_event(what, START_MS + at_ms))
            for at_ms, what in self._story
        ]

    def seen(self) -> Counter[str]:
        """What it has met, and how often each checker has looked."""
        checks = {f"checked {x}": n for x, n in self.truth.checks().items()}
        played = {f"played {x.__name__}": n for x, n in self.truth.played.items()}
        return self.situations.seen + Counter({**checks, **played})

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
        drawn = with_dates({plan.name: plan for plan in plans}, self._rng("dates"))
        if self.registry is not None:
            drawn = with_images(drawn, self._images)
        if any(self.spots):
            drawn = with_bonds(drawn, self._rng("bonds"))
        if "batches lost" in self.swarm.faults:
            return (
                drawn  # whose attempts may come twice under one number: who has hung is not known
            )
        if self._has_gaps:
            drawn = with_gaps(drawn, self._gaps)
        drawn = with_hangs(drawn, self._rng("stands still"))
        return with_cadences(drawn, self._cadences) if self._has_cadences else drawn

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
            output=self._output(f"n{index}{suffix}"),
            budget_bytes=self.swarm.spool_bytes,
            connect=self._connect,
            burial=self.burial,
            suffix=suffix,
            labels=self.spots[index],
            shelf=self._shelf(f"n{index}{suffix}"),
        )

    def _shelf(self, name: str) -> Shelf | None:
        if self.registry is None:
            return None
        rate = rate_of(self._rng(f"{name}/fetching")) if self._fetches_slowly else 0
        return Shelf(self.loop, self._rng(f"{name}/images"), self.registry, rate=rate)

    def _output(self, name: str) -> Output:
        rng = self._rng(f"{name}/output")
        if not self.swarm.prints:
            return Silence(Path(), self.loop, rng, truth=self.truth)
        if not self._disks:
            disks = TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
            self._disks = self._over.enter_context(disks)
        return Output(Path(self._disks) / name, self.loop, rng, truth=self.truth)

    def _audience(self) -> Audience:
        """Those who follow what the ranks print."""
        lines = next(one for one in self.truth.checkers if isinstance(one, LinesOnce))
        place = Place(
            self.loop,
            self._rng("readers"),
            self.truth,
            connect=self._follow,
            lines=lines,
            seen=self.situations.fault,
            trims=self.swarm.log_bytes_max < PLENTY,
        )
        audience = Audience(
            place, self.people, find=self.coordinator.job, storm_ms=self.swarm.storm_ms
        )
        self.loop.after(SECOND, audience.begin)
        return audience

    def _follow(self) -> Wire:
        """A user begins to follow something."""
        wire = Wire(self.loop, self._wires, self.network, what="follow")
        wire.up = lambda asked: self.coordinator.take_follow(wire, asked)
        return wire

    def _connect(self, node_id: str) -> Wire:
        """An agent begins a stream of batches."""
        wire = Wire(self.loop, self._wires, self.network, what="push", node_id=node_id)
        wire.up = lambda first: self.coordinator.take_push(wire, first)
        return wire

    def _checkers(self) -> list[Checker]:
        coordinator, people = self.coordinator, self.people
        return [
            checkers.NoDeviceTwice(),
            checkers.Alone(),
            checkers.SavedBeforeStopped(self.truth),
            HeldUntilResumed(),
            OneChildPerRequest(self.truth),
            checkers.OneAttemptAtATime(self._is_orphan),
            checkers.LegalMoves(),
            checkers.CancelIsFinal(),
            checkers.DrainedStaysEmpty(),
            OutTakesNothing(),
            HungIsHung(self.truth.asked, self.loop, self.situations.fault),
            checkers.FreedByEvidence(),
            DoubtedTakesNothing(),
            SilenceIsLong(),
            checkers.GivenUpAfterProof(self.truth),
            checkers.FewAtOnce(),
            RoomForOne(),
            self._near_is_awaited(),
            MovedSafely(self.situations.fault),
            FewOut(),
            WhyIsKept(),
            NobodyDelaysAClaim(),
            DataIsNear(self.situations.fault),
            NobodyOutlivesAWindow(),
            LimitsHold(self.situations.fault),
            LedgerIsExact(),
            ChangedAsAsked(self.truth),
            QueuesAsSet(self.truth),
            BatchesWhole(self.truth),
            KeysStay(self.truth),
            SameImage(self.truth, lambda id: self.plans[people.names[id]], self.situations.fault),
            checkers.GangsWhole(),
            KeptTogether(self.situations.fault),
            EarliestFirst(self.situations.fault),
            RaisedInTime(
                coordinator.settings.aging_ms,
                lambda: coordinator.decides_since_ms,
                self.situations.fault,
            ),
            NotBeforeItsTime(lambda: coordinator.decides_since_ms, self.situations.fault),
            checkers.NothingLost(coordinator),
            checkers.StoppedForAReason(self.truth, coordinator, self._is_orphan),
            checkers.HonestOutcomes(self.truth, self.plans),
            checkers.MemoryIsBounded(coordinator),
            LinesOnce(
                self.truth,
                coordinator.streams.connection,
                in_contact=self._in_contact,
                spool_bytes=self.swarm.spool_bytes,
            ),
            checkers.EverythingRan(coordinator, people, people.names.__getitem__),
        ]

    def _near_is_awaited(self) -> NearIsAwaited:
        clocks = (*self.swarm.node_clocks, self.swarm.coordinator_clock)
        jumps = {"node clock jumps", "coordinator clock jumps"} & self.swarm.faults.keys()
        return NearIsAwaited(
            self.truth.asked,
            self.situations.fault,
            plan_of=lambda id: self.plans[self.people.names[id]],
            plain_clocks=not jumps and not any(x.offset_ms or x.rate != 1.0 for x in clocks),
        )

    def _in_contact(self, lease_id: str) -> bool:
        """Whether the coordinator knows the node of a lease, and hears it."""
        job = self.coordinator.job(lease_id.split(".")[0])
        number = int(lease_id.split(".")[1])
        if job is None or job.attempt is None or job.attempt.number != number:
            return False
        nodes = self.coordinator.view.nodes
        ids = [share.node_id for share in job.attempt.shares]
        return all(id in nodes and not nodes[id].unreachable_since_ms for id in ids)

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
            node.wear.mend()
            node.machine.power = not node.is_gone
            node.machine.engine_back_ms = 0
            node.set_clock_right()
            node.start_agent()
        if self.registry is not None:
            self.registry.is_away = False
        self.people.withdraw("queue")
        self.people.withdraw("remove queue")
        self.people.withdraw("roll")
        self.people.withdraw("maintain")
        self.loop.run(self.loop.now_ms + 90 * SECOND)
        self.people.lift_limits()
        self.people.stop_rolling()
        self.loop.run(self.loop.now_ms + 30 * SECOND)
        for node in self.nodes:
            node.start_agent()  # of two with one name, the one that stays
        for known in self.coordinator.nodes():
            self.people.enable(known.node_id)
            if known.health != SOUND:
                self.people.trust(known.node_id, HealthState.HEALTHY)
        total = self.coordinator.store.reload(self.coordinator.settings).state.total
        for job in self.coordinator.jobs():
            # one that was accepted before any node was known may fit none of them
            endless = never_ends(self.plans[job.name]) or place(total, job.demand) is None
            if endless and not job.is_final:
                self.people.cancel(job.job_id)
        self._pick_up()

    def _pick_up(self) -> None:
        """Whatever was put aside is taken up again, or given up, now and later."""
        self.coordinator.start()  # a crash may have waited for the end of a stall
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
        self.burial.check()
        self.coordinator.check_replay()
        for going in self.truth.going.values():
            lease = going.lease
            raise SimFailure(f"{lease.lease_id} runs on for nobody", lease.lease_id, lease.job_id)
        self.truth.settle()

    def _at_rest(self) -> bool:
        view = self.coordinator.view
        if not self.coordinator.up or view.leases_by_job or self.people.waiting:
            return False
        if self.truth.going:  # some wait in the kernel for minutes, known to the coordinator or not
            return False
        return all(job.is_final for job in view.jobs.values())

    def _last_drain(self) -> None:
        """With jobs running, one node is emptied by force, and then given back."""
        fresh = [replace(plan, name=f"q{plan.name}") for plan in list(self.plans.values())[:6]]
        for plan in fresh:
            obeying = "obeys" if plan.on_stop == "stuck" else plan.on_stop
            self.plans[plan.name] = replace(
                plan, hangs=False, fails=0, on_stop=obeying, watched=False, stalls=0
            )
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
