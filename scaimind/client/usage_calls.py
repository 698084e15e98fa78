"""The call that tells what leased devices were used for."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict, Unpack

from scaimind.client.calls import Call, Pages, _coordinator, _number, _timestamp
from scaimind.v1 import mind_coordinator_pb2 as pb


class UsageFilters(TypedDict, total=False):
    """What is summed. Times are cut to whole days (UTC)."""

    group_by: str | pb.GetUsageRequest.GroupBy.ValueType
    start_time: datetime
    end_time: datetime
    tenant_id: str
    user_id: str
    queue_name: str
    node_id: str
    job_id: str
    order_by: str


def usage_page(
    *, page_size: int | None = None, page_token: str = "", **filters: Unpack[UsageFilters]
) -> Call[pb.GetUsageResponse]:
    """Reads what leased devices were used for: one page of sums, those with most first."""
    given = dict(filters)
    if "group_by" in filters:
        kinds = pb.GetUsageRequest.GroupBy
        given["group_by"] = _number(kinds, filters["group_by"], field="group_by")
    for field in ("start_time", "end_time"):
        moment = given.get(field)
        if isinstance(moment, datetime):
            given[field] = _timestamp(moment)
    request = pb.GetUsageRequest(page_size=page_size, page_token=page_token, **given)  # type: ignore[arg-type]
    return _coordinator("GetUsage", request, pb.GetUsageResponse)


def list_usage(*, page_size: int = 1000, **filters: Unpack[UsageFilters]) -> Pages[pb.UsageGroup]:
    """Iterates over all sums, page by page."""
    return Pages(usage_page(page_size=page_size, **filters), "groups")
