"""What queues, tenants and users hold, and what their queues allow them.

Theory of operation. Each lease that is not ended is a charge to its queue, to all queues above it, and in
each of them to its tenant and its user: what still stops counts, because its devices are not free. Devices
that are set aside for a job that waits are a charge as well. Charges are kept by the records that they
follow from, so that what is held is a sum of what is live.

A share is the dominant one: of the resource of which most is held (Ghodsi et al., NSDI 2011). FAIR
compares an average of it that forgets by half in `half_life_ms`:
    average(t) = average(t0) 2^-(t-t0)/H + share (1 - 2^-(t-t0)/H)
It is noted whenever a share changes, and only of accounts that are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp2

from coordinator.core.records import (
    ROOT,
    WHOLE,
    Job,
    JobStatus,
    Lease,
    Offer,
    Order,
    Queue,
    Usage,
)

ANYONE = "*"
MOST_LEVELS = 8
PPB = 1_000_000_000
Limit = tuple[str, str]  # a queue, and a tenant of it or ""


@dataclass(frozen=True, slots=True)
class Charge:
    """What something holds, and for whom."""

    queue_name: str
    tenant_id: str
    user_id: str
    milli: int  # thousandths of a device
    cpu_count: int
    memory_bytes: int


@dataclass(slots=True)
class Held:
    """A sum of charges."""

    count: int = 0
    milli: int = 0
    cpu_count: int = 0
    memory_bytes: int = 0

    def add(self, charge: Charge, sign: int) -> None:
        self.count += sign
        self.milli += sign * charge.milli
        self.cpu_count += sign * charge.cpu_count
        self.memory_bytes += sign * charge.memory_bytes


NOTHING = Held()


class Leaving:
    """What jobs hold and are giving up, by queue with those below it."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._of: dict[str, tuple[str, int]] = {}  # job → its queue, thousandths of devices
        self.milli: Counter[str] = Counter()

    def put(self, job_id: str, queue_name: str, *, milli: int) -> None:
        """Sets how much of what a job holds it is giving up; 0 is nothing."""
        before, after = self._of.pop(job_id, None), (queue_name, milli) if milli else None
        if after is not None:
            self._of[job_id] = after
        if before != after:
            self._add(before, -1)
            self._add(after, 1)

    def changed(self) -> None:
        """Counts anew, when other queues lie above each other."""
        self.milli.clear()
        for one in self._of.values():
            self._add(one, 1)

    def _add(self, one: tuple[str, int] | None, sign: int) -> None:
        for name in self._shares.path(one[0]) if one else ():
            self.milli[name] += sign * (one[1] if one else 0)
            if not self.milli[name]:
                del self.milli[name]


class Shares:
    """The accounts of all queues, tenants and users."""

    def __init__(self, queues: dict[str, Queue], *, half_life_ms: int) -> None:
        self.held: dict[str, Held] = {}  # by account
        self.usages: dict[str, Usage] = {}
        self.guarantees = False  # whether any queue has one
        self._queues = queues
        self._half_life_ms = half_life_ms
        self._charges: dict[str, Charge] = {}
        self.leaving = Leaving(self)
        self._machines: dict[str, tuple[int, int, int]] = {}
        self._total = [0, 0, 0]  # thousandths of devices, cpus, bytes of memory
        self._paths: dict[str, tuple[str, ...]] = {}
        self._dirty: dict[str, None] = {}  # compared accounts of which the share may have changed

    # the tree

    def path(self, queue_name: str) -> tuple[str, ...]:
        """The queue and all above it, ROOT last."""
        if queue_name not in self._queues:  # users name them as they like: nothing is kept of those
            return (queue_name, ROOT) if queue_name != ROOT else (ROOT,)
        known = self._paths.get(queue_name)
        if known is not None:
            return known
        names = [queue_name]
        while names[-1] != ROOT and len(names) < MOST_LEVELS:
            above = self._queues.get(names[-1])
            names.append(above.parent if above else ROOT)
        if names[-1] != ROOT:
            names.append(ROOT)
        path = self._paths[queue_name] = tuple(names)
        return path

    def account_of(self, job: Job) -> str:
        """Among whom the job's turn is sought in its queue: its user, its tenant or all."""
        queue = self._queues.get(job.queue_name)
        if queue is not None and queue.order is Order.FAIR:
            return user_account(job.queue_name, job.tenant_id, user_id=job.user_id)
        for name in self.path(job.queue_name) if self._queues else ():
            above = self._queues.get(name)
            if above is not None and above.tenant_limits:
                return job.tenant_id
        return ""

    def changed(self) -> None:
        """A queue was set or removed: everything is filed anew."""
        self._paths.clear()
        self.guarantees = any(queue.guaranteed_devices for queue in self._queues.values())
        charges, self._charges, self.held = self._charges, {}, {}
        self._dirty.clear()
        for key, charge in charges.items():
            self.put(key, charge)
        self.leaving.changed()

    # what is held

    def put(self, key: str, charge: Charge | None) -> Iterator[Limit]:
        """Sets what one record holds; answers the limits below which there is more room now."""
        before = self._charges.get(key)
        if before == charge:
            return iter(())
        if before is not None:
            self._add(before, -1)
            del self._charges[key]
        if charge is not None:
            self._charges[key] = charge
            self._add(charge, 1)
        return iter(()) if before is None else self._limits(before)

    def put_machine(self, node_id: str, offer: Offer | None) -> None:
        """Sets what a node has in all; None takes it off."""
        before = self._machines.pop(node_id, (0, 0, 0))
        after = (0, 0, 0)
        if offer is not None:
            after = (WHOLE * len(offer.devices), offer.cpu_count, offer.memory_bytes)
            self._machines[node_id] = after
        for index in range(3):
            self._total[index] += after[index] - before[index]

    def _add(self, charge: Charge, sign: int) -> None:
        path = self.path(charge.queue_name)
        for level, name in enumerate(path):
            own = queue_account(name)
            self._count(own, charge, sign=sign)
            self._count(tenant_account(name, charge.tenant_id), charge, sign=sign)
            above = self._queues.get(path[level + 1]) if level + 1 < len(path) else None
            if above is not None and above.order is Order.FAIR:
                self._dirty[own] = None
        queue = self._queues.get(charge.queue_name)
        if queue is not None and queue.order is Order.FAIR:
            user = user_account(charge.queue_name, charge.tenant_id, user_id=charge.user_id)
            self._count(user, charge, sign=sign)
            self._dirty[user] = None

    def _count(self, account: str, charge: Charge, *, sign: int) -> None:
        held = self.held.get(account)
        if held is None:
            held = self.held[account] = Held()
        held.add(charge, sign)
        if not held.count:
            del self.held[account]

    def _limits(self, charge: Charge) -> Iterator[Limit]:
        for name in self.path(charge.queue_name):
            yield name, ""
            yield name, charge.tenant_id

    # what is allowed

    def limit_of(self, job: Job) -> Limit | None:
        """The limit that keeps the job from starting; None where there is none.

        What is set aside for it is held already.
        """
        need = milli_of(job) if not job.reserved else 0
        for name in self.path(job.queue_name):
            queue = self._queues.get(name)
            if queue is None:
                continue
            if not queue.places:
                return name, ""
            if queue.max_devices and self.devices_milli(name) + need > queue.max_devices * WHOLE:
                return name, ""
            most = tenant_limit(queue, job.tenant_id)
            if most is not None:
                held = self.held.get(tenant_account(name, job.tenant_id), NOTHING)
                if held.milli + need > most * WHOLE:
                    return name, job.tenant_id
        return None

    def tenant(self, queue_name: str, tenant_id: str) -> tuple[int | None, float]:
        """(Devices that a tenant may hold in a queue, devices that it holds)."""
        queue = self._queues.get(queue_name)
        held = self.held.get(tenant_account(queue_name, tenant_id), NOTHING)
        return tenant_limit(queue, tenant_id) if queue else None, held.milli / WHOLE

    def devices_milli(self, queue_name: str) -> int:
        """Thousandths of devices that a queue holds, with those below it."""
        return self.held.get(queue_account(queue_name), NOTHING).milli

    def is_entitled(self, queue_name: str, need_milli: int) -> bool:
        """Whether a queue would hold no more than its guarantee with so much more."""
        queue = self._queues.get(queue_name)
        if queue is None or not queue.guaranteed_devices:
            return False
        return self.devices_milli(queue_name) + need_milli <= queue.guaranteed_devices * WHOLE

    def borrowed_milli(self, queue_name: str) -> int:
        """Thousandths of devices that a queue holds above its guarantee, and is not giving up yet."""
        queue = self._queues.get(queue_name)
        guaranteed = queue.guaranteed_devices * WHOLE if queue else 0
        stays = self.devices_milli(queue_name) - self.leaving.milli[queue_name]
        return max(0, stays - guaranteed)

    # what was used

    def average_ppb(self, account: str, now_ms: int) -> float:
        """The decayed average of an account's share."""
        usage = self.usages.get(account)
        if usage is None:
            return float(self.share_ppb(account))
        kept = exp2(-max(0, now_ms - usage.updated_at_ms) / self._half_life_ms)
        return usage.average_ppb * kept + usage.share_ppb * (1.0 - kept)

    def share_ppb(self, account: str) -> int:
        """What an account holds now of the resource of which it holds most."""
        held = self.held.get(account)
        if held is None:
            return 0
        parts = zip((held.milli, held.cpu_count, held.memory_bytes), self._total, strict=True)
        return max(part * PPB // total if total > 0 else 0 for part, total in parts)

    def renewed(self, now_ms: int) -> Iterator[Usage]:
        """The accounts of which the share has changed since it was noted last."""
        for account in [*self._dirty]:
            del self._dirty[account]
            share = self.share_ppb(account)
            known = self.usages.get(account)
            if (known is None and not share) or (known is not None and known.share_ppb == share):
                continue
            average = round(self.average_ppb(account, now_ms)) if known else 0
            yield Usage(account=account, share_ppb=share, average_ppb=average, updated_at_ms=now_ms)

    def note(self, usage: Usage) -> None:
        """Takes over what was noted of an account."""
        self.usages.pop(usage.account, None)  # noted last, it stands last
        self.usages[usage.account] = usage

    def stalest(self) -> str | None:
        """An account that holds nothing, noted longest ago."""
        return next((key for key, one in self.usages.items() if not one.share_ppb), None)


def entitled_milli(shares: Shares, queue: Queue | None) -> int:
    """Thousandths of devices that a queue may hold more, up to its guarantee."""
    return queue.guaranteed_devices * WHOLE - shares.devices_milli(queue.name) if queue else 0


def milli_of(job: Job) -> int:
    """Thousandths of devices that a job holds when it runs."""
    return job.demand.thousandths * job.demand.device_count


def charge_of_lease(job: Job, lease: Lease) -> Charge:
    """What a lease holds."""
    return Charge(
        job.queue_name,
        job.tenant_id,
        job.user_id,
        lease.thousandths * len(lease.device_ids),
        lease.cpu_count,
        lease.memory_bytes,
    )


def charge_of_room(job: Job) -> Charge | None:
    """What is set aside for a job that waits; None where nothing is. One that holds devices still is
    charged for those."""
    if not job.reserved or job.status is not JobStatus.QUEUED:
        return None
    milli = sum(share.thousandths * len(share.device_ids) for share in job.reserved)
    return Charge(
        job.queue_name,
        job.tenant_id,
        job.user_id,
        milli,
        job.demand.cpu_count,
        job.demand.memory_bytes,
    )


def tenant_limit(queue: Queue, tenant_id: str) -> int | None:
    """Devices that a tenant may hold in a queue; None is no limit."""
    limits = dict(queue.tenant_limits)
    return limits.get(tenant_id, limits.get(ANYONE))


def queue_account(name: str) -> str:
    """Of a queue and those below it."""
    return f"queue/{_safe(name)}"


def tenant_account(queue_name: str, tenant_id: str) -> str:
    """Of a tenant in a queue and those below it."""
    return f"tenant/{_safe(queue_name)}/{_safe(tenant_id)}"


def user_account(queue_name: str, tenant_id: str, *, user_id: str) -> str:
    """Of a user in a queue."""
    return f"user/{_safe(queue_name)}/{_safe(tenant_id)}/{_safe(user_id)}"


def _safe(text: str) -> str:
    return text.replace("%", "%25").replace("/", "%2F") if "%" in text or "/" in text else text
