"""Methods about nodes, totals and queues."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from coordinator.core.commands import EnableNode, RemoveNode, SetHealth
from coordinator.core.health import HealthState
from coordinator.core.known import Known
from coordinator.core.reasons import Reason
from coordinator.core.records import WAITING, WHOLE, Node
from coordinator.core.share import user_account
from coordinator.rpc import convert
from coordinator.rpc.alarms import alarms
from coordinator.rpc.border import Call
from coordinator.rpc.documents import WaitOf
from coordinator.rpc.fetching import Fetching
from coordinator.rpc.jobs import caller_of, note_replay
from coordinator.rpc.nodes import node_message
from coordinator.rpc.pages import PageTokens
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.queues import QueueFigures, User
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.telemetry import Telemetry
from coordinator.runtime.view import node_status
from coordinator.store.protocol import Store
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import node_pb2

DEFAULT_PAGE_SIZE = 20
QUEUES_MAX = 1000
QUEUE_JOBS_MAX, QUEUE_JOBS_LEAST = 1000, 10  # of one answer, shared by its queues; of each at least
ADMIN = "scaimind:cluster_admin"


@dataclass(slots=True)
class _Type:
    """Devices of one type."""

    total: int = 0
    free: int = 0
    simulated: bool = False


class ClusterMethods:
    """Cluster, nodes, enable and remove, queue."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        *,
        telemetry: Telemetry,
        tokens: PageTokens,
        clock: Clock,
        wait_s: WaitOf,
        fetching: Fetching,
    ) -> None:
        self._driver = driver
        self._view = driver.view
        self._wait_s = wait_s
        self._store = store
        self._telemetry = telemetry
        self._fetching = fetching
        self._tokens = tokens
        self._clock = clock

    async def GetCluster(
        self, request: api.GetClusterRequest, call: Call
    ) -> api.GetClusterResponse:
        """Totals of the cluster, and the tenant's jobs by status."""
        statuses: Counter[str] = Counter()
        types: dict[str, _Type] = {}
        free_nodes = 0
        for node in self._view.nodes.values():
            status = self._status(node)
            statuses[status] += 1
            usable = status == "READY" and not node.health.node.is_out
            free_nodes += self._count_devices(node, types, usable=usable)
        jobs = await self._store.count_jobs(call.identity.tenant_id)
        return api.GetClusterResponse(
            total_nodes=len(self._view.nodes),
            ready_nodes=statuses["READY"],
            free_nodes=free_nodes,
            nodes_by_status=statuses,
            accelerators=[
                api.AcceleratorTotals(
                    type=name, total=one.total, free=one.free, simulated=one.simulated
                )
                for name, one in sorted(types.items())
            ],
            total_devices=sum(one.total for one in types.values()),
            free_devices=sum(one.free for one in types.values()),
            jobs_by_status=jobs,
            queue_depth=sum(jobs.get(status.value, 0) for status in WAITING),
            simulated=any(one.simulated for one in types.values()),
            alarms=alarms(self._view, for_operator=call.identity.is_operator)
            if ADMIN in call.identity.permissions
            else [],
        )

    async def ListNodes(self, request: api.ListNodesRequest, call: Call) -> api.ListNodesResponse:
        """Nodes by id."""
        wanted = request.status_filter.upper()
        if wanted and (
            wanted not in node_pb2.Node.Status.keys() or wanted == "STATUS_UNSPECIFIED"  # noqa: SIM118
        ):
            names = ", ".join(node_pb2.Node.Status.keys()[1:])
            text = f"must be one of {names}"
            raise Refusal(
                Reason.INVALID_ARGUMENT,
                f"status_filter {text}",
                violations=(("status_filter", text),),
            )
        question = f"nodes:{wanted}"
        after = self._tokens.read(request.page_token, question=question)
        size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
        ids = [
            node_id
            for node_id in sorted(self._view.nodes)
            if not wanted or self._status(self._view.nodes[node_id]) == wanted
        ]
        rest = [node_id for node_id in ids if after is None or node_id > after[1]]
        page = rest[:size]
        more = (page[-1], page[-1]) if len(rest) > size else None
        return api.ListNodesResponse(
            nodes=[self._message(self._view.nodes[node_id], call) for node_id in page],
            next_page_token=self._tokens.make(more, question=question),
            total_count=len(ids),
        )

    async def GetNode(self, request: api.GetNodeRequest, call: Call) -> node_pb2.Node:
        """One node with its devices and telemetry."""
        node = self._view.nodes.get(request.node_id)
        if node is None:
            raise Refusal(
                Reason.NODE_NOT_FOUND,
                f"there is no node {request.node_id}",
                facts=(("node_id", request.node_id),),
            )
        return self._message(node, call)

    async def EnableNode(self, request: api.EnableNodeRequest, call: Call) -> node_pb2.Node:
        """Lets a drained node take jobs again."""
        reply = await self._driver.submit(
            EnableNode(caller=caller_of(call, request), node_id=request.node_id)
        )
        note_replay(call, reply)
        assert reply.node is not None
        return self._message(reply.node, call)

    async def SetNodeHealth(self, request: api.SetNodeHealthRequest, call: Call) -> node_pb2.Node:
        """Takes an admin's word on how far a node or a device is trusted."""
        command = SetHealth(
            caller=caller_of(call, request),
            node_id=request.node_id,
            device_id=request.device_id,
            state=HealthState(node_pb2.NodeHealth.State.Name(request.state)),
            reason=request.reason,
            validate_only=request.validate_only,
        )
        reply = await self._driver.submit(command)
        note_replay(call, reply)
        assert reply.node is not None
        return self._message(reply.node, call)

    async def RemoveNode(
        self, request: api.RemoveNodeRequest, call: Call
    ) -> api.RemoveNodeResponse:
        """Forgets a node that will never come back."""
        reply = await self._driver.submit(
            RemoveNode(caller=caller_of(call, request), node_id=request.node_id)
        )
        note_replay(call, reply)
        return api.RemoveNodeResponse(node_id=request.node_id)

    async def GetQueue(self, request: api.GetQueueRequest, call: Call) -> api.GetQueueResponse:
        """What waits, in the order in which it would start.

        Of queues in which the tenant has jobs itself; those of others in them are only counted.
        """
        known = self._view.queues.by_name
        queues = {name: one for name, one in known.items() if self._sees(one, call)}
        if request.queue_name:
            names = [request.queue_name]
            queues = {name: one for name, one in queues.items() if name in names}
        else:
            names = sorted(queues)[:QUEUES_MAX] or ["default"]
        limit = max(QUEUE_JOBS_LEAST, QUEUE_JOBS_MAX // len(names))
        return api.GetQueueResponse(
            queues=[
                self._queue(name, queues[name], call, limit=limit)
                if name in queues
                else api.QueueView(queue_name=name)
                for name in names
            ],
            depth=sum(len(one.waiting) for one in queues.values()),
            running=sum(one.running for one in queues.values()),
        )

    def _queue(self, name: str, queue: QueueFigures, call: Call, *, limit: int) -> api.QueueView:
        view = api.QueueView(queue_name=name, depth=len(queue.waiting), running=queue.running)
        for position, job_id in self._next(name, queue, call.identity.tenant_id, limit=limit):
            job = self._view.jobs[job_id]
            row = view.jobs.add(
                job_id=job.job_id,
                name=job.name,
                status=job.status.value,
                priority=job.priority,
                position=position,
                gpu_count=job.demand.device_count,
                gpu_type=job.demand.device_type,
                gpu_fraction=job.demand.thousandths / WHOLE,
                created_at=convert.timestamp(job.created_at_ms),
                estimated_wait_seconds=self._wait_s(job),
            )
            row.status_reason.code = job.reason
            row.status_reason.message = convert.reason_text(job)
        return view

    def _next(
        self, name: str, queue: QueueFigures, tenant_id: str, *, limit: int
    ) -> list[tuple[int, str]]:
        """Place and id of the tenant's next jobs."""
        if not queue.by_user:
            return queue.first(tenant_id, limit)
        users = list(queue.by_user)

        def used(state: Known, now_ms: int) -> dict[User, float]:
            accounts = {user: user_account(name, user[0], user_id=user[1]) for user in users}
            return {user: state.shares.average_ppb(one, now_ms) for user, one in accounts.items()}

        return queue.first_by_use(tenant_id, limit, used=self._driver.look(used))

    def _message(self, node: Node, call: Call) -> node_pb2.Node:
        message = node_message(
            node,
            self._view.desired_of_node(node.node_id),
            heard_ms=self._view.heard_ms.get(node.node_id, 0),
            shown=lambda job_id: self._shown(job_id, call),
        )
        message.cache.CopyFrom(self._fetching.cache(node.node_id))
        message.cache.fetch_bytes_per_s = node.offer.fetch_bytes_per_s
        sample = self._telemetry.newest(node.node_id)
        if sample is not None:
            message.host.ParseFromString(sample.host)
            for device in message.devices:
                measured = sample.devices.get(device.device_id)
                if measured is not None:
                    device.telemetry.ParseFromString(measured)
        return message

    def _shown(self, job_id: str, call: Call) -> bool:
        if call.identity.is_operator:
            return True
        job = self._view.job(job_id)
        return job is not None and job.tenant_id == call.identity.tenant_id

    def _sees(self, queue: QueueFigures, call: Call) -> bool:
        identity = call.identity
        return identity.is_operator or identity.tenant_id in queue.live

    def _status(self, node: Node) -> str:
        return node_status(node, busy=bool(self._view.desired_of_node(node.node_id)))

    def _count_devices(self, node: Node, types: dict[str, _Type], *, usable: bool) -> bool:
        """Adds a node's devices to those of their types; whether it takes jobs and holds none."""
        leases = self._view.desired_of_node(node.node_id)
        out = {device_id for lease in leases for device_id in lease.device_ids}
        out.update(node.health.out_devices())
        for device in node.offer.devices:
            one = types.setdefault(device.type, _Type())
            one.total += 1
            one.simulated = one.simulated or device.simulated
            if usable and device.healthy and device.device_id not in out:
                one.free += 1
        return usable and not leases
