"""The calls that empty nodes, and that tell what that and other changes come to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from scaimind.client.body import to_message
from scaimind.client.calls import Body, Call, _coordinator, _id, _number, _timestamp
from scaimind.v1 import mind_coordinator_pb2 as pb


def drain(
    node_id: str,
    *,
    force: bool = False,
    strategy: str | pb.DrainNodeRequest.Strategy.ValueType = "STRATEGY_UNSPECIFIED",
    reason: str = "",
    deadline_seconds: int = 0,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    validate_only: bool = False,
    request_id: str | None = None,
) -> Call[pb.DrainNodeResponse]:
    """Stops placing jobs on a node; its jobs go by `strategy`: WAIT, CHECKPOINT_AND_MOVE or FORCE.

    With `starts_at` from then on; with `ends_at` the node is enabled again then.
    """
    request = pb.DrainNodeRequest(
        node_id=node_id,
        force=force,
        strategy=_number(pb.DrainNodeRequest.Strategy, strategy, field="strategy"),
        reason=reason,
        deadline_seconds=deadline_seconds,
        starts_at=_timestamp(starts_at) if starts_at else None,
        ends_at=_timestamp(ends_at) if ends_at else None,
        validate_only=validate_only,
        request_id=_id(request_id),
    )
    return _coordinator("DrainNode", request, pb.DrainNodeResponse)


def get_drain(node_id: str) -> Call[pb.DrainPlan]:
    """Tells how the drain of a node goes."""
    return _coordinator("GetDrain", pb.GetDrainRequest(node_id=node_id), pb.DrainPlan)


def start_rolling_drain(
    *,
    labels: Mapping[str, str] | None = None,
    max_unavailable: int = 1,
    strategy: str | pb.DrainNodeRequest.Strategy.ValueType = "STRATEGY_UNSPECIFIED",
    until_enabled: bool = False,
    deadline_seconds: int = 0,
    reason: str = "",
    validate_only: bool = False,
    request_id: str | None = None,
) -> Call[pb.RollingDrain]:
    """Drains the nodes that carry all `labels`, at most `max_unavailable` at once."""
    request = pb.StartRollingDrainRequest(
        label=[f"{key}={value}" for key, value in (labels or {}).items()],
        max_unavailable=max_unavailable,
        strategy=_number(pb.DrainNodeRequest.Strategy, strategy, field="strategy"),
        until_enabled=until_enabled,
        deadline_seconds=deadline_seconds,
        reason=reason,
        validate_only=validate_only,
        request_id=_id(request_id),
    )
    return _coordinator("StartRollingDrain", request, pb.RollingDrain)


def list_rolling_drains() -> Call[pb.ListRollingDrainsResponse]:
    """Reads the rolling drains that go on, and those that ended lately."""
    request = pb.ListRollingDrainsRequest()
    return _coordinator("ListRollingDrains", request, pb.ListRollingDrainsResponse)


def rolling_drain(drain_id: str) -> Call[pb.RollingDrain]:
    """Tells how a rolling drain goes."""
    request = pb.GetRollingDrainRequest(drain_id=drain_id)
    return _coordinator("GetRollingDrain", request, pb.RollingDrain)


def cancel_rolling_drain(drain_id: str, *, request_id: str | None = None) -> Call[pb.RollingDrain]:
    """Has a rolling drain take no more nodes; those that it has out stay drained."""
    request = pb.CancelRollingDrainRequest(drain_id=drain_id, request_id=_id(request_id))
    return _coordinator("CancelRollingDrain", request, pb.RollingDrain)


def simulate(request: Body | pb.SimulateRequest) -> Call[pb.SimulateResponse]:
    """Tells what changes would come to; a dict is as the body over REST."""
    asked = pb.SimulateRequest()
    if isinstance(request, pb.SimulateRequest):
        asked.CopyFrom(request)
    else:
        to_message(request, asked)
    return _coordinator("Simulate", asked, pb.SimulateResponse)
