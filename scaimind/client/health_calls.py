"""The call that says how far nodes and devices are trusted."""

from __future__ import annotations

from scaimind.client.calls import Call, _coordinator, _id, _number
from scaimind.v1 import mind_coordinator_pb2 as pb
from scaimind.v1 import node_pb2


def set_node_health(
    node_id: str,
    state: str | node_pb2.NodeHealth.State.ValueType,
    *,
    device_id: str = "",
    reason: str = "",
    validate_only: bool = False,
    request_id: str | None = None,
) -> Call[node_pb2.Node]:
    """Says how far a node, or one of its devices, is trusted: HEALTHY, PROBATION or QUARANTINED."""
    request = pb.SetNodeHealthRequest(
        node_id=node_id,
        state=_number(node_pb2.NodeHealth.State, state, field="state"),
        device_id=device_id,
        reason=reason,
        validate_only=validate_only,
        request_id=_id(request_id),
    )
    return _coordinator("SetNodeHealth", request, node_pb2.Node)
