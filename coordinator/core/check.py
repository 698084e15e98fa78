"""Everything that must hold of a state, checked in full. For tests, simulations and doubt."""

from __future__ import annotations

from coordinator.core.capacity import ANY
from coordinator.core.deadlines import Due
from coordinator.core.health import HealthState, due_ms
from coordinator.core.invariants import ensure
from coordinator.core.known import (
    is_doubted,
    is_eligible,
    is_moving,
    is_told,
    kept_for,
    may_be_preempted,
)
from coordinator.core.ledger import is_open
from coordinator.core.order import HIGHEST_PRIORITY, turn_of
from coordinator.core.records import (
    WHOLE,
    Job,
    JobStatus,
    LeaseAction,
    Share,
    StopCause,
    node_key_id,
)
from coordinator.core.room import exact_of, form_of, look_of
from coordinator.core.saving import PATIENT, is_to_be_stopped, is_to_leave
from coordinator.core.share import Shares, charge_of_lease, charge_of_room
from coordinator.core.state import ClusterState
from coordinator.core.tables import RUNNING
from coordinator.core.times import total_ms


def check_invariants(state: ClusterState) -> None:
    """Raises InvariantViolation for the first fact that does not hold."""
    _check_devices(state)
    _check_leases(state)
    for job in state.jobs.values():
        _check_job(state, job)
    _check_queue(state)
    _check_room(state)
    _check_shares(state)
    _check_mix(state)
    _check_drains(state)
    _check_capacity(state)
    _check_deadlines(state)
    _check_health(state)
    holds = {node.node_id: node.offer.held for node in state.nodes.values() if node.offer.holds}
    ensure(state.near.held == holds, "what nodes hold is indexed", holds)
    for key in state.keys.values():
        held = key.key_id == node_key_id(key.node_id) if key.node_id else bool(key.tenant_id)
        ensure(held, "a credential is a node's, by its name, or a tenant's", key.key_id)


def _check_devices(state: ClusterState) -> None:
    taken: dict[tuple[str, str], int] = {}
    for lease in state.leases.values():
        if lease.is_ended:
            continue
        ensure(
            len(set(lease.device_ids)) == len(lease.device_ids),
            "a lease names a device once",
            lease.lease_id,
        )
        for device_id in lease.device_ids:
            key = (lease.node_id, device_id)
            taken[key] = taken.get(key, 0) + lease.thousandths
            ensure(taken[key] <= WHOLE, "no device is given away twice", key, lease)


def _check_leases(state: ClusterState) -> None:
    for lease in state.leases.values():
        id = lease.lease_id
        job = state.jobs.get(lease.job_id)
        ensure(job is not None, "a live lease has a live job", id)
        assert job is not None
        assert job.attempt is not None
        ensure(id in state.leases_of_node.get(lease.node_id, ()), "indexed by node", id)
        ensure(id in state.leases_of_job.get(lease.job_id, ()), "indexed by job", id)
        if lease.is_ended:
            continue
        ensure(lease.node_id in state.nodes, "a lease that holds devices has a node", id)
        if lease.fenced_at_ms:
            ensure(lease.fence_after_ms > 0, "only what its agent stops by itself is fenced", id)
            ensure(lease.action is LeaseAction.STOP, "what is fenced is to stop", id)
            continue
        ensure(lease.attempt == job.attempt.number, "only the newest attempt holds devices", id)
        if lease.action is LeaseAction.RUN:
            ensure(job.status in RUNNING, "only a running job desires a lease", id, job.status)
            ensure(job.attempt.stop is None, "a stop is asked of every lease", id)
    for index in (state.leases_of_node, state.leases_of_job):
        ensure(all(index.values()), "no empty entry in an index of leases")
        count = sum(len(ids) for ids in index.values())
        ensure(count == len(state.leases), "an index has each lease once", count)


def _check_job(state: ClusterState, job: Job) -> None:
    id = job.job_id
    leases = state.attempt_leases(job)
    ensure(
        0 <= job.aged <= HIGHEST_PRIORITY - job.priority, "nobody is raised above all others", id
    )
    if job.status in RUNNING:
        assert job.attempt is not None
        ensure(
            [lease.node_id for lease in leases] == [s.node_id for s in job.attempt.shares],
            "an attempt has all of its leases",
            id,
        )
        ensure(any(not lease.is_over for lease in leases), "an ended attempt is concluded", id)
        held = sum(len(lease.device_ids) for lease in leases)
        ensure(held == job.demand.device_count, "a gang has all of its devices", id)
        same = all(lease.thousandths == job.demand.thousandths for lease in leases)
        ensure(same, "a job has as much of a device as it asked for", id)
        for node_id in (
            lease.node_id for lease in leases if job.demand.exclusive and not lease.is_ended
        ):
            others = {x.job_id for x in state.leases_on(node_id) if not x.is_ended}
            ensure(others == {id}, "an exclusive job is alone on its nodes", id, node_id)
        ranks = sum(lease.local_world_size for lease in leases)
        ensure(ranks * job.demand.devices_per_rank == held, "a gang has all of its ranks", id)
    elif not job.is_final:
        ensure(all(lease.is_over for lease in leases), "nothing of a waiting job runs", id)
    if job.is_final:
        ensure(id in state.leases_of_job, "a final job without leases has retired", id)
    attempt = job.attempt
    if attempt is not None and attempt.ask is not None:
        ensure(job.status is JobStatus.CHECKPOINTING, "an asked job is CHECKPOINTING", id)
        ensure(attempt.stop is None, "a stop ends what was asked for", id)
        ensure(attempt.hold or attempt.ask.cause is not StopCause.PAUSED, "a pause holds", id)
        ensure(leases[0].save > leases[0].saved, "what was asked for is not proven yet", id)
    if attempt is not None and attempt.hold:
        ensure(job.status in RUNNING, "only what runs has still to be held", id)
    if attempt is not None and is_open(job) and attempt.times.until_ms:
        counted_ms = attempt.times.until_ms - attempt.granted_at_ms
        ensure(total_ms(attempt.times.days) == counted_ms, "all of its time has a class", id)
    if is_told(job):
        for needed in job.policy.depends_on:
            ensure(id in state.dependents.get(needed, ()), "it is told of its dependency", id)


def _check_queue(state: ClusterState) -> None:
    waiting = {
        job.job_id: job
        for job in state.jobs.values()
        if is_eligible(job) and not is_doubted(state, job)
    }
    queue = state.queue
    ensure(set(waiting) == set(queue.group_of), "the queue has every waiting job once")
    ensure(
        sum(len(group.turns) for group in queue.groups.values()) == len(waiting),
        "a waiting job is in one group",
    )
    for job_id, group in queue.group_of.items():
        ensure(
            group.demand == waiting[job_id].demand, "a job is in the group of its demand", job_id
        )
        job = waiting[job_id]
        ensure(group.queue_name == job.queue_name, "and of its queue", job_id)
        ensure(group.account == state.shares.account_of(job), "and of its account", job_id)
        turn = turn_of(job, state.queue_of(job))
        ensure(group.turns[job_id] == turn, "a turn stays as it is", job_id)
        is_pending = job.status is JobStatus.PENDING
        ensure((job_id in group.pending) == is_pending, "who is to be let in is known", job_id)
    for group in queue.groups.values():
        let_in = not (group.is_blocked and group.pending)
        ensure(let_in, "who only finds no room is let in", *group.pending)
    blocked = {group.serial for group in queue.blocked()}
    ensure(
        len(blocked) + len(queue.ready) == len(queue.groups) and not blocked & set(queue.ready),
        "a group is ready or set aside",
    )


def _check_shares(state: ClusterState) -> None:
    anew = Shares(state.queues, half_life_ms=1)
    for lease in state.leases.values():
        job = state.jobs.get(lease.job_id)
        if job is not None and not lease.is_ended:
            anew.put(lease.lease_id, charge_of_lease(job, lease))
    for job in state.jobs.values():
        anew.put(f"room of {job.job_id}", charge_of_room(job))
        anew.leaving.put(job.job_id, job.queue_name, milli=state.leaving_milli(job))
    ensure(anew.held == state.shares.held, "what is held is the sum of what is live")
    ensure(anew.leaving.milli == state.shares.leaving.milli, "so is what is being given up")


def _check_room(state: ClusterState) -> None:
    kept: dict[tuple[str, str], Share] = {}
    for job in state.jobs.values():
        waits = job.awaits is not None and bool(job.awaits.shares)
        ensure(not (job.room and waits), "who waits for data preempts nobody", job.job_id)
        ensure(not (job.claim and job.reserved), "a claim gives way to both", job.job_id)
        for share in kept_for(job):
            may = job.status is JobStatus.QUEUED or (is_moving(job) and not job.claim)
            ensure(may, "only for who waits or is moved is room set aside", job.job_id)
            found = state.kept.get(share.node_id, {}).get(job.job_id)
            ensure(found == share, "what is set aside is indexed", job.job_id)
            for device_id in share.device_ids:
                key = share.node_id, device_id
                ensure(key not in kept, "a device is set aside once", key, kept.get(key))
                kept[key] = share
        holds = job.attempt is not None and not job.attempt.ended_at_ms and not job.is_final
        ensure((job.job_id in state.ends.filed) == holds, "who holds devices is filed", job.job_id)
        claims = job.job_id in state.claims.get(job.queue_name, ())
        ensure(claims == bool(job.claim), "a claim is known", job.job_id)
        filed = job.job_id in state.running.filed
        ensure(filed == may_be_preempted(job), "what may be preempted is filed", job.job_id)
    count = sum(len(jobs) for jobs in state.kept.values())
    shares = sum(len(kept_for(job)) for job in state.jobs.values())
    ensure(count == shares, "nothing else is set aside", count, shares)
    _check_kept(state, kept)


def _check_kept(state: ClusterState, kept: dict[tuple[str, str], Share]) -> None:
    for job in state.jobs.values():  # of these others have something until they end
        for share in () if job.room else kept_for(job):
            for device_id in share.device_ids:
                del kept[share.node_id, device_id]
    ensure(all(len(x) == 1 for x in state.claims.values()), "a queue has one claim")
    taken = {key: share.thousandths for key, share in kept.items()}
    for lease in state.leases.values():
        if lease.is_ended or lease.action is not LeaseAction.RUN:
            continue
        attempt = state.jobs[lease.job_id].attempt
        asked = attempt is not None and attempt.ask is not None
        for device_id in lease.device_ids:
            key = lease.node_id, device_id
            if key in taken and not asked:
                taken[key] += lease.thousandths
                within = taken[key] <= WHOLE
                ensure(within, "only what stops is set aside", lease.lease_id, kept[key])


def _check_drains(state: ClusterState) -> None:
    for job in state.jobs.values():
        attempt = job.attempt
        ask = attempt.ask if attempt else None
        if attempt is not None and ask is not None and ask.cause is StopCause.DRAINED:
            wanted = is_to_leave(state, job) if ask == PATIENT else is_to_be_stopped(state, job)
            ensure(wanted or attempt.hold, "who is to leave has a node that wants it", job.job_id)
    out: dict[str, dict[str, None]] = {}
    for node in state.nodes.values():
        if node.drain is not None and node.drain.rolling:
            out.setdefault(node.drain.rolling, {})[node.node_id] = None
    ensure(out == state.rolls.out, "what a rolling drain has out is indexed", out)
    for drain in state.rolls.drains.values():
        count = len(out.get(drain.drain_id, ()))
        ensure(count <= drain.max_unavailable, "only so many nodes are out", drain, count)
    for node in state.nodes.values():
        if node.drain is None or not node.drain.move:
            continue
        for lease in state.leases_on(node.node_id):
            job = state.jobs[lease.job_id]
            assert job.attempt is not None
            goes = bool(job.is_final or job.attempt.stop or job.attempt.ask)
            ensure(lease.is_over or goes, "what is on a node that is to be left goes", job.job_id)


def _check_mix(state: ClusterState) -> None:
    new = {id for id, job in state.jobs.items() if job.sequence > state.mix.through_sequence}
    ensure(new == set(state.unlearnt), "what is not learnt yet is known")


def _check_capacity(state: ClusterState) -> None:
    for node_id in state.nodes:
        ensure(
            state.free.rooms.get(node_id) == state.free_room(node_id), "free room is true", node_id
        )
    for capacity in (state.free, state.total):
        filed = 0
        by_type: dict[str, int] = {}
        for node_id, room in capacity.rooms.items():
            ensure(node_id in state.nodes, "a room belongs to a node", node_id)
            looks = [(pool.device_class, look_of(pool)) for pool in room.pools]
            for pool, (device_class, look) in zip(room.pools, looks, strict=True):
                count = len(pool.device_ids) + len(pool.parts)
                by_type[device_class.type] = by_type.get(device_class.type, 0) + count
                others = tuple(one for one in looks if one[0] != device_class)
                form = form_of(room, look, others=others)
                for label in (ANY, *room.labels):
                    lots = capacity.shelves[device_class, label].buckets[form].nodes
                    is_there = node_id in lots[exact_of(room, pool)]
                    ensure(is_there, "a pool is on its shelf", node_id)
                    filed += 1
        shelves = capacity.shelves.values()
        shelved = sum(
            len(list(bucket.node_ids())) for shelf in shelves for bucket in shelf.buckets.values()
        )
        ensure(filed == shelved, "a shelf has nothing else", filed, shelved)
        ensure(by_type == capacity.devices_by_type, "devices are counted by type", by_type)


def _check_deadlines(state: ClusterState) -> None:
    tables = {
        Due.DRAIN: state.nodes,
        Due.SILENCE: state.nodes,
        Due.WINDOW: state.nodes,
        Due.HEALTH: state.nodes,
        Due.FENCED: state.nodes,
        Due.FORGET: state.requests,
        Due.AGE: {"": None},  # of all that wait
    }
    for due, id in state.deadlines.wanted:
        ensure(id in tables.get(due, state.jobs), "a deadline is of something live", due, id)  # type: ignore[operator]


def _check_health(state: ClusterState) -> None:
    rules = state.settings.health
    for id, node in state.nodes.items():
        health = node.health
        due = state.deadlines.wanted.get((Due.HEALTH, id), 0)
        ensure(due == due_ms(health, rules=rules), "what fades has a deadline", id)
        tried = [health.node, *(grade for x, grade in health.devices if x in health.asked)]
        on_trial = any(grade.state is HealthState.PROBATION for grade in tried)
        ensure(not health.asked or on_trial, "only who is on probation is tried", id)
