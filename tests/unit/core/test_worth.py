"""Who is looked at when something comes free: whoever may fit, and each of them once."""

from __future__ import annotations

from itertools import count

from coordinator.core.commands import Caller, ObservedLease, SubmitJob, SyncNode
from coordinator.core.core import Core
from coordinator.core.records import Demand, Device, LeaseState, Offer, Policy
from coordinator.core.settings import CoreSettings

CALLER = Caller(tenant_id="acme", user_id="ada")
NOW_MS = 1_000
OFFER = Offer(
    devices=tuple(
        Device(device_id=f"d{index}", index=index, type="H100", memory_bytes=80)
        for index in range(4)
    ),
    cpu_count=8,
    memory_bytes=1_000_000,
    disk_bytes=1_000_000,
)


class Cluster:
    """One node with four devices, all of one job's."""

    def __init__(self, looks: int) -> None:
        self.core = Core(CoreSettings(max_placements_per_pass=looks))
        self._numbers = count(1)
        self.report(())
        self.submit(Demand(device_count=4, cpu_count=2))
        self.core.schedule(NOW_MS)

    def submit(self, demand: Demand) -> str:
        job_id = f"job-{next(self._numbers)}"
        self.core.step(
            SubmitJob(
                caller=CALLER, job_id=job_id, name="", demand=demand, policy=Policy(), document=b""
            ),
            NOW_MS,
        )
        return job_id

    def report(self, leases: tuple[ObservedLease, ...]) -> None:
        number = next(self._numbers)
        command = SyncNode(
            node_id="n1", incarnation="a", generation=1, sequence=number, offer=OFFER, leases=leases
        )
        self.core.step(command, NOW_MS)

    def end(self, count_of: int) -> None:
        """So many of the leases end."""
        found = self.core.state.leases_on("n1")
        ended = LeaseState.ENDED
        self.report(
            tuple(
                ObservedLease(
                    lease_id=lease.lease_id,
                    epoch=lease.epoch,
                    state=ended if number < count_of else LeaseState.RUNNING,
                    done=number < count_of,
                    started_at_ms=NOW_MS,
                )
                for number, lease in enumerate(found)
            )
        )

    def rest(self) -> int:
        """Passes until there is nothing to look at; how many."""
        passes = 0
        while self.core.state.queue.needs_look():
            self.core.schedule(NOW_MS)
            passes += 1
            assert passes < 100, "it goes on for ever"
        return passes


def test_who_was_looked_at_in_vain_is_not_looked_at_again_when_a_pass_was_cut_short() -> None:
    cluster = Cluster(looks=4)
    # all of them have the shape of one that fits, and none the memory
    waiting = [
        cluster.submit(Demand(device_count=1, cpu_count=8 - n % 2, memory_bytes=n))
        for n in range(20)
    ]
    cluster.submit(Demand(device_count=3, cpu_count=7))
    cluster.rest()
    cluster.end(1)
    cluster.rest()
    running = [x for x in waiting if cluster.core.state.jobs[x].attempt]
    assert len(running) == 1
    assert not cluster.core.state.queue.opened


def test_who_fits_beside_the_one_that_came_first_gets_what_is_left() -> None:
    cluster = Cluster(looks=1_000)
    first = cluster.submit(Demand(device_count=2))
    large = cluster.submit(Demand(device_count=4))
    small = cluster.submit(Demand(device_count=2, memory_bytes=5))
    cluster.rest()
    cluster.end(1)
    assert cluster.rest() <= 2
    has = {x: cluster.core.state.jobs[x].attempt is not None for x in (first, large, small)}
    assert has == {first: True, large: False, small: True}
