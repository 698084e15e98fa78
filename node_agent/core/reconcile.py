"""Desired against observed: what the agent has to do next.

Theory of operation. `reconcile` is called with all that is desired and all that is observed, after
every answer of the coordinator and after every change on the node. It does nothing itself; its
actions are carried out, change what is observed, and it is called again. Called twice without a
change between, it asks for nothing twice.

The rules, per lease:
- one that is desired to run and not known is started; where its spec is missing it was known once
  and is lost;
- one that is to stop and is not known is answered with an ended one, so that the coordinator may
  be sure that nothing runs;
- one that is to stop is stopped once, and again only to shorten the grace;
- one that is not desired any more is stopped, and forgotten once it has ended and all that it
  wrote was sent;
- nothing is started on devices that another lease may still be using: a coordinator whose store has
  lost its last writes may give away what it does not know to be taken;
- an epoch fences all lower ones of its lease: these go first, and only then the new one starts;
- when one rank fails the others of its lease are stopped: a gang is all or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from node_agent.core.leases import WHOLE, Category, Desired, Fault, Lease, State, first_fault

SHORT_GRACE_MS = 10_000
"""Grace of leases that nobody wants any more, and of ranks whose gang has failed."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start every local rank of a lease whose spec was given."""

    lease_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask every rank of a lease to stop, and end it when `grace_ms` are over."""

    lease_id: str
    epoch: int
    grace_ms: int


@dataclass(frozen=True, slots=True)
class Conclude:
    """Report a lease as ended of which nothing was ever started here."""

    lease_id: str
    epoch: int
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove an ended lease with its folder; it is not reported any more."""

    lease_id: str
    epoch: int


Action = Start | Stop | Conclude | Forget


def reconcile(
    desired: Iterable[Desired] | None,
    observed: Iterable[Lease],
    *,
    now_ms: int,
    others: Iterable[Lease] = (),
) -> list[Action]:
    """Actions that bring `observed` closer to `desired`; None: not heard yet, let all run.

    `others` are leases that are not looked at now; their devices are in use all the same.
    """
    known = list(observed)
    if desired is None:
        return _gang_stops(known, now_ms)
    wanted = {want.lease_id: want for want in _newest(desired)}
    actions: list[Action] = []
    for lease in known:
        want = wanted.get(lease.lease_id)
        actions += _known(
            lease, want if want and want.epoch == lease.epoch else None, now_ms=now_ms
        )
    known_ids = {lease.lease_id for lease in known}
    using = (lease for lease in (*known, *others) if lease.state is not State.ENDED)
    taken: dict[str, int] = {}  # thousandths of devices
    for lease in using:
        for device_id in lease.device_ids:
            taken[device_id] = taken.get(device_id, 0) + lease.thousandths
    for key, want in wanted.items():
        most = WHOLE - want.thousandths
        if key not in known_ids and all(taken.get(id, 0) <= most for id in want.device_ids):
            actions.append(_unknown(want))
    return actions


def _known(lease: Lease, want: Desired | None, *, now_ms: int) -> list[Action]:
    if lease.leaving:
        return []
    if lease.state is State.ENDED:
        forget = want is None and lease.drained
        return [Forget(lease.lease_id, lease.epoch)] if forget else []
    if want is None:
        return _stop(lease, SHORT_GRACE_MS, now_ms=now_ms)
    if not want.run:
        return _stop(lease, want.grace_ms, now_ms=now_ms)
    return _gang_stops([lease], now_ms)


def _unknown(want: Desired) -> Action:
    if want.run and want.has_spec:
        return Start(want.lease_id, want.epoch)
    lost = Fault(Category.NODE_LOST, "the node knows nothing of this lease any more")
    return Conclude(want.lease_id, want.epoch, lost if want.run else None)


def _gang_stops(leases: Iterable[Lease], now_ms: int) -> list[Action]:
    return [
        action
        for lease in leases
        if lease.state is not State.ENDED and first_fault(lease.ranks) is not None
        for action in _stop(lease, SHORT_GRACE_MS, now_ms=now_ms)
    ]


def _stop(lease: Lease, grace_ms: int, *, now_ms: int) -> list[Action]:
    if lease.stop_by_ms is not None and now_ms + grace_ms >= lease.stop_by_ms:
        return []
    return [Stop(lease.lease_id, lease.epoch, grace_ms)]


def _newest(desired: Iterable[Desired]) -> Iterable[Desired]:
    """Only the highest epoch of each lease: it fences the others."""
    return sorted(desired, key=lambda want: want.epoch)
