"""Nodes as messages, with what is held of their health."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from coordinator.core.commands import ObservedCanary
from coordinator.core.faults import POINT, Fault
from coordinator.core.health import Grade, Health, HealthState
from coordinator.core.records import WHOLE, Lease, Node
from coordinator.rpc import convert
from coordinator.runtime.view import node_status
from scaimind.agent.v1 import agent_service_pb2 as agents
from scaimind.v1 import node_pb2

MOST_FAULTS = 64
TEXT_MAX = 512


def node_message(
    node: Node, leases: list[Lease], *, heard_ms: int, shown: Callable[[str], bool]
) -> node_pb2.Node:
    """A node with its devices. `shown` tells of a job id whether the caller may see it."""
    holders: dict[str, list[Lease]] = {}
    for lease in sorted(leases, key=lambda lease: lease.job_id):
        for device_id in lease.device_ids:
            holders.setdefault(device_id, []).append(lease)
    offer, drain, window = node.offer, node.drain, node.window
    status = node_status(node, busy=bool(leases))
    code, text = "", ""
    if status == "UNREACHABLE":
        code, text = "NODE_UNREACHABLE", "out of contact; its jobs are taken to go on"
    elif drain is not None:
        code, text = "DRAIN_REQUESTED", drain.reason
    out = node.health.out_devices()
    return node_pb2.Node(
        node_id=node.node_id,
        status=node_pb2.Node.Status.Value(status),
        status_reason=node_pb2.NodeReason(code=code, message=text),
        address=offer.address,
        labels=dict(offer.labels),
        simulated=offer.simulated,
        devices=[
            node_pb2.Device(
                device_id=device.device_id,
                index=device.index,
                type=device.type,
                model=device.model,
                memory_bytes=device.memory_bytes,
                simulated=device.simulated,
                healthy=device.healthy and device.device_id not in out,
                faults=[
                    node_pb2.DeviceFault(code=one.code, seen_count=one.count, message=one.text)
                    for one in device.faults
                ],
                health=_grade(node.health.grade(device.device_id)),
                job_id=_holder(holders.get(device.device_id, ()), shown),
                free_fraction=_left(holders.get(device.device_id, ())) / WHOLE,
            )
            for device in offer.devices
        ],
        device_count=len(offer.devices),
        free_device_count=sum(1 for one in offer.devices if one.device_id not in holders),
        cpu_count=offer.cpu_count,
        memory_bytes=offer.memory_bytes,
        disk_bytes=offer.disk_bytes,
        running_job_ids=sorted({one.job_id for one in leases if shown(one.job_id)}),
        drain_requested=drain is not None,
        drain_deadline=convert.timestamp(drain.deadline_ms) if drain else None,
        maintenance_starts_at=convert.timestamp(window.from_ms) if window else None,
        maintenance_ends_at=convert.timestamp(window.until_ms) if window else None,
        last_seen_at=convert.timestamp(heard_ms),
        joined_at=convert.timestamp(node.joined_at_ms),
        agent_version=offer.agent_version,
        health=_health(node),
    )


def _holder(leases: Sequence[Lease], shown: Callable[[str], bool]) -> str:
    return next((lease.job_id for lease in leases if shown(lease.job_id)), "")


def _left(leases: Sequence[Lease]) -> int:
    """Thousandths of a device that is in those leases."""
    return max(0, WHOLE - sum(lease.thousandths for lease in leases))


def faults_of(device: node_pb2.Device) -> tuple[Fault, ...]:
    """The faults that an agent tells of a device, by code."""
    found = {
        one.code: one for one in device.faults[:MOST_FAULTS] if one.code and one.seen_count > 0
    }
    return tuple(
        Fault(code, found[code].seen_count, found[code].message[:TEXT_MAX])
        for code in sorted(found)
    )


def canary_of(request: agents.SyncRequest) -> ObservedCanary | None:
    """How a canary ended, where one has."""
    if not request.HasField("canary"):
        return None
    failed = {one.device_id: one.message or "it failed" for one in request.canary.failures}
    return ObservedCanary(number=request.canary.number, failed=tuple(sorted(failed.items())))


def put_canary(response: agents.SyncResponse, health: Health) -> None:
    """Asks for the canary that is desired."""
    if health.asked:
        response.canary.number = health.canary
        response.canary.device_ids.extend(health.asked)


def _grade(grade: Grade) -> node_pb2.NodeHealth:
    return node_pb2.NodeHealth(
        state=node_pb2.NodeHealth.State.Value(grade.state.value),
        reasons=[note.text or note.code for note in grade.notes],
        score=grade.points / POINT,
        since=convert.timestamp(grade.since_ms),
        until=convert.timestamp(grade.until_ms),
        notes=[
            node_pb2.HealthNote(
                code=note.code,
                message=note.text,
                seen_at=convert.timestamp(note.at_ms),
                seen_count=note.count,
            )
            for note in grade.notes
        ],
    )


def _health(node: Node) -> node_pb2.NodeHealth:
    """The node's own, or SUSPECT where one of its devices is not as it should be."""
    message = _grade(node.health.node)
    message.canary_device_ids.extend(node.health.asked)
    wrong = list(_wrong(node))
    if wrong and node.health.node.state is HealthState.HEALTHY:
        message.state = node_pb2.NodeHealth.SUSPECT
    message.reasons.extend(wrong)
    return message


def _wrong(node: Node) -> Iterator[str]:
    for device in node.offer.devices:
        grade = node.health.grade(device.device_id)
        if not device.healthy:
            yield f"device {device.device_id} is unhealthy"
        elif grade.state is not HealthState.HEALTHY:
            why = f" ({grade.notes[-1].code})" if grade.notes else ""
            yield f"device {device.device_id} is {grade.state}{why}"
