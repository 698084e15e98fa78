"""What leased devices were used for, as users and operators may see it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.core import ledger
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Lease
from coordinator.core.times import DAY_MS, Spent, summed, total
from coordinator.rpc import convert
from coordinator.rpc.border import Call
from coordinator.rpc.identity import Identity
from coordinator.rpc.pages import PageTokens
from coordinator.runtime.bootstrap import OWN_TENANT
from coordinator.runtime.clock import Clock
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View
from coordinator.store.protocol import Store, UsageBy, UsageFilter, UsageGroup
from coordinator.store.usage import Sums
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api

DEFAULT_DAYS = 30
DEFAULT_PAGE_SIZE = 100
GROUPS_MAX = 20_000
BREATH = 500  # leases, until others have their turn


class UsageMethods:
    """GetUsage."""

    def __init__(self, view: View, store: Store, *, clock: Clock, tokens: PageTokens) -> None:
        self._view = view
        self._store = store
        self._clock = clock
        self._tokens = tokens

    async def GetUsage(self, request: api.GetUsageRequest, call: Call) -> api.GetUsageResponse:
        """A page of sums, those with most first."""
        now_ms = self._clock.now_ms()
        where = self._filter(request, call.identity, now_ms=now_ms)
        question = f"usage {replace(where, until_version=0)} {request.order_by}"
        after = self._tokens.read(request.page_token, question=question)
        size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
        groups = await self._groups(where, now_ms=now_ms)
        ordered = sorted((_place(group, request.order_by), group) for group in groups)
        rest = [one for one in ordered if after is None or one[0] > (-int(after[0]), after[1])]
        page = rest[:size]
        last = page[-1][0] if len(page) < len(rest) else None
        return api.GetUsageResponse(
            groups=[_group(group, by=where.by) for _, group in page],
            total=device_time(summed(group.spent for group in groups)),
            next_page_token=self._tokens.make(last and (-last[0], last[1]), question=question),
            total_count=len(groups),
            start_time=convert.timestamp(where.from_day * DAY_MS),
            end_time=convert.timestamp(where.until_day * DAY_MS),
        )

    def spent(self, job: Job) -> Spent:
        """Device-microseconds of a job up to now."""
        leases = self._view.leases_of_job(job.job_id)
        # The leases are those of now, and the record may be of a page that was read before their grant.
        newest = self._view.job(job.job_id) or job
        if not leases or newest.attempt is None:
            return newest.spent
        return ledger.spent(newest, leases, now_ms=self._clock.now_ms())

    async def _groups(self, where: UsageFilter, *, now_ms: int) -> tuple[UsageGroup, ...]:
        """Of leases that have ended as the store says, of others as they are published now."""
        live = list(self._unbooked(where.tenant_id))
        sums = Sums(where)
        sums.add_groups(await self._store.usage(where, limit=GROUPS_MAX + 1))
        for number, (job, lease) in enumerate(live, start=1):
            days = ledger.days_of(job, lease, now_ms=now_ms)
            whole = replace(lease, days=days)
            sums.add(ledger.entry(job, whole, losses=job.losses, now_ms=now_ms))
            if number % BREATH == 0:
                await asyncio.sleep(0)
        found = sums.groups(GROUPS_MAX + 1)
        if len(found) > GROUPS_MAX:
            text = f"these are more than {GROUPS_MAX} groups: ask for fewer days, or one user"
            raise Refusal(Reason.INVALID_ARGUMENT, text, violations=(("group_by", text),))
        return found

    def _unbooked(self, tenant_id: str) -> Iterator[tuple[Job, Lease]]:
        for job_id, leases in self._view.leases_by_job.items():
            job = self._view.jobs.get(job_id)
            if job is not None and tenant_id in ("", job.tenant_id):
                yield from ((job, one) for one in leases.values() if not ledger.is_booked(job, one))

    def _filter(
        self, request: api.GetUsageRequest, identity: Identity, *, now_ms: int
    ) -> UsageFilter:
        tenant_id = request.tenant_id
        if not identity.is_operator and tenant_id not in ("", identity.tenant_id):
            text = f"only admins of tenant {OWN_TENANT} see what other tenants use"
            raise Refusal(Reason.AUTHZ_PERMISSION_DENIED, text)
        end_ms = _milliseconds(request.end_time) if request.HasField("end_time") else now_ms
        until_day = -(-end_ms // DAY_MS)
        from_day = until_day - DEFAULT_DAYS
        if request.HasField("start_time"):
            from_day = _milliseconds(request.start_time) // DAY_MS
        if from_day >= until_day:
            text = "must be before end_time"
            raise Refusal(
                Reason.INVALID_ARGUMENT, f"start_time {text}", violations=(("start_time", text),)
            )
        kinds = api.GetUsageRequest.GroupBy
        return UsageFilter(
            by=UsageBy[kinds.Name(request.group_by or kinds.USER)],
            from_day=from_day,
            until_day=until_day,
            until_version=self._view.version,
            tenant_id=tenant_id if identity.is_operator else identity.tenant_id,
            user_id=request.user_id,
            queue_name=request.queue_name,
            node_id=request.node_id,
            job_id=request.job_id,
        )


def device_time(spent: Spent) -> job_pb2.DeviceTime:
    """Amounts by class, and their sum."""
    classes = {f"{name}_us": amount for name, amount in spent._asdict().items()}
    return job_pb2.DeviceTime(leased_us=total(spent), **classes)


def job_usage(job: Job, spent: Spent) -> job_pb2.JobUsage:
    """What a job has used, and what of it was lost why."""
    return job_pb2.JobUsage(
        time=device_time(spent),
        lost=[
            job_pb2.LostWork(
                attempt=loss.attempt,
                cause=loss.cause,
                cause_id="" if loss.is_foreign else loss.cause_id,
                redone_us=loss.redone_us,
            )
            for loss in job.losses
        ],
    )


def _milliseconds(moment: Timestamp) -> int:
    return moment.seconds * 1000 + -(-moment.nanos // 1_000_000)


def _place(group: UsageGroup, order_by: str) -> tuple[int, str]:
    """Most first, then by name."""
    amount = getattr(group.spent, order_by, None) if order_by else None
    return -(total(group.spent) if amount is None else amount), f"{group.tenant_id}\0{group.key}"


def _group(group: UsageGroup, *, by: UsageBy) -> api.UsageGroup:
    cause, _, cause_id = group.key.partition("/") if by is UsageBy.CAUSE else ("", "", "")
    return api.UsageGroup(
        key=group.key,
        tenant_id=group.tenant_id,
        time=device_time(group.spent),
        cause=cause,
        cause_id=cause_id,
    )
