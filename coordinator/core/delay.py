"""Whether a job waits for a node that holds its data, rather than fetch them where devices are free.

Theory of operation (delay scheduling: Zaharia et al., *Delay Scheduling*, EuroSys 2010). A job that finds
room on nodes which would first have to fetch what it names, for a minute or more, looks at the nodes that
hold it. Where it fits on such ones now it starts there. Where it will as attempts there end, and is expected
to wait for that no longer than half of what it saves, it waits: the devices are set aside for it, and it
leaves the line, so those behind it go on with what it left free.

It waits no longer than it would save (and never longer than a bound), whatever was expected: so the wait
and the fetch that follows it take at most twice as long as to fetch at once, as with all that may be rented
or bought (Karlin et al., *Competitive snoopy caching*, 1988). It waits once only until it has started.

How long a fetch takes is known from how fast nodes told to have fetched before; where nobody knows, nobody
waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import gt

from coordinator.core.attempts import failed_on, let_in
from coordinator.core.capacity import TOPOLOGY, Capacity
from coordinator.core.known import Known
from coordinator.core.placement import Placement, place
from coordinator.core.reasons import Reason
from coordinator.core.records import Await, Job
from coordinator.core.turn import Turn

LEAST_MS = 60_000  # of fetching that has to be saved
MOST_NODES = 8  # that are looked at
LOOKS = 64  # at attempts there that end


class Fetches:
    """How long nodes would fetch what a job names."""

    def __init__(self, known: Known, job: Job, *, holders: tuple[str, ...]) -> None:
        self._known = known
        self._wants = job.wants
        self.holders = holders
        rates = [known.nodes[one].offer.fetch_bytes_per_s for one in holders]
        self._fastest = max(rates, default=0)

    def node_ms(self, node_id: str) -> int:
        """How long a node would fetch; 0 where that is not known. One that has never told how fast it is
        is taken to be as fast as the fastest of those that hold something."""
        rate = self._known.nodes[node_id].offer.fetch_bytes_per_s or self._fastest
        return self._known.near.left_bytes(self._wants, node_id) * 1000 // rate if rate else 0

    def slowest_ms(self, placement: Placement) -> int:
        """How long a gang would wait for the last of its nodes."""
        return max(self.node_ms(spot.node_id) for spot in placement)


def nearer(
    turn: Turn, job: Job, *, placement: Placement, holders: tuple[str, ...]
) -> Placement | None:
    """Where a job that fits somewhere is to start now; None where it waits from now on. `holders` have
    something of what it names, who has the most first."""
    most_ms = turn.state.settings.near_data_ms
    if not holders or not most_ms or job.awaits is not None or job.claim is not None:
        return placement
    fetches = Fetches(turn.state, job, holders=holders)
    fetch_ms = fetches.slowest_ms(placement)
    if fetch_ms < LEAST_MS:
        return placement
    search = _Search(turn, job, fetches=fetches, placement=placement)
    found, at_ms = search.soonest(fetch_ms - LEAST_MS)
    if found is None:
        return placement
    saved_ms = fetch_ms - fetches.slowest_ms(found)
    until_ms = turn.now_ms + min(saved_ms, most_ms)
    if at_ms <= turn.now_ms:
        return found
    if 2 * (at_ms - turn.now_ms) > until_ms - turn.now_ms:
        return placement
    shares = tuple(spot.share() for spot in found)
    text = (
        f"it waits for {found[0].node_id}, which holds what takes {saved_ms // 1000} s to fetch elsewhere: "
        f"{(at_ms - turn.now_ms) // 1000} s as expected, {(until_ms - turn.now_ms) // 1000} s at most"
    )
    awaits = Await(shares=shares, until_ms=until_ms)
    turn.edit(let_in(turn, job), Reason.DATA_AWAITED, awaits=awaits, message=text)
    return None


class _Search:
    """Seeks room on nodes that hold what a job names, no farther apart than where it fits now."""

    def __init__(self, turn: Turn, job: Job, *, fetches: Fetches, placement: Placement) -> None:
        self._state = turn.state
        self._now_ms = turn.now_ms
        self._job = job
        self._fetches = fetches
        self._most = self._spread(placement)
        self._room = Capacity()
        self._room.search_by(turn.state.free.fragments, basis=None)
        self._gone: set[str] = set()  # leases that are taken to have ended

    def soonest(self, most_ms: int) -> tuple[Placement | None, int]:
        """Where it fits first of the nodes that would fetch no longer than `most_ms`, and from when."""
        state, fetches, away = self._state, self._fetches, failed_on(self._job)
        nodes = [one for one in fetches.holders if one != away and fetches.node_ms(one) <= most_ms]
        there = dict.fromkeys(nodes[:MOST_NODES])
        self._lay(there)
        found, at_ms = self._place(), self._now_ms
        held = {x.job_id for node_id in there for x in state.leases_on(node_id) if not x.is_ended}
        ends = sorted((state.expected_end_ms(state.jobs[one], self._now_ms), one) for one in held)
        for end_ms, job_id in ends[:LOOKS]:
            if found is not None or 2 * (end_ms - self._now_ms) > state.settings.near_data_ms:
                break
            leases = [state.leases[x] for x in state.leases_of_job[job_id]]
            self._gone.update(lease.lease_id for lease in leases)
            self._lay(lease.node_id for lease in leases if lease.node_id in there)
            found, at_ms = self._place(), max(end_ms, self._now_ms + 1)
        return found, at_ms

    def _lay(self, node_ids: Iterable[str]) -> None:
        for node_id in node_ids:
            room = self._state.free_room(node_id, without=self._gone)
            self._room.put(node_id, None if room is None or room.is_suspect else room)

    def _place(self) -> Placement | None:
        found = place(self._room, self._job.demand)
        if found is None or any(map(gt, self._spread(found), self._most)):
            return None
        return found

    def _spread(self, placement: Placement) -> list[int]:
        """On how many nodes it is, and in how many places of each kind."""
        labels = [dict(self._state.nodes[spot.node_id].offer.labels) for spot in placement]
        return [len(placement), *(len({one.get(key) for one in labels}) for key in TOPOLOGY)]
