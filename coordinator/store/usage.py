"""Sums of the ledger, for what has no query language of its own: a store in memory or in Redis, and the
leases that have not ended."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.records import Entry
from coordinator.core.times import Spent, summed, times_milli
from coordinator.store.protocol import UsageBy, UsageFilter, UsageGroup

OWN_TENANT = (UsageBy.JOB, UsageBy.USER, UsageBy.TENANT)
"""What belongs to one tenant: names alike of two are two groups."""


class Sums:
    """What some entries come to, by group."""

    def __init__(self, where: UsageFilter) -> None:
        self._where = where
        self._groups: dict[tuple[str, str], Spent] = {}

    def add(self, entry: Entry) -> None:
        """Adds what of an entry is asked for."""
        where = self._where
        wanted = all(
            not asked or asked == found
            for asked, found in (
                (where.tenant_id, entry.tenant_id),
                (where.user_id, entry.user_id),
                (where.queue_name, entry.queue_name),
                (where.node_id, entry.node_id),
                (where.job_id, entry.job_id),
            )
        )
        days = [x.spent for x in entry.days if where.from_day <= x.day < where.until_day]
        if not wanted or not days:
            return
        key = key_of(entry, where)
        before = self._groups.get(key, Spent())
        self._groups[key] = summed((before, times_milli(summed(days), entry.milli)))

    def add_groups(self, groups: Iterable[UsageGroup]) -> None:
        """Adds what was summed before."""
        for group in groups:
            key = group.key, group.tenant_id
            self._groups[key] = summed((self._groups.get(key, Spent()), group.spent))

    def groups(self, limit: int) -> tuple[UsageGroup, ...]:
        """At most so many."""
        found = [UsageGroup(key, tenant, spent) for (key, tenant), spent in self._groups.items()]
        return tuple(found[:limit])


def key_of(entry: Entry, where: UsageFilter) -> tuple[str, str]:
    """The group of an entry: its name, and the tenant to which that belongs."""
    tenant_id = entry.tenant_id if where.by in OWN_TENANT else ""
    if where.by is not UsageBy.CAUSE:
        return str(getattr(entry, where.by.value)), tenant_id
    is_hidden = not entry.cause_id or (entry.is_foreign and where.tenant_id)
    return entry.cause if is_hidden else f"{entry.cause}/{entry.cause_id}", ""
