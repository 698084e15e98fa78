"""Methods about how queues are set: operators set them, admins of a tenant see what concerns it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

from coordinator.core import commands
from coordinator.core.records import ROOT, WHOLE, Order, Queue
from coordinator.core.share import ANYONE, MOST_LEVELS
from coordinator.rpc import convert
from coordinator.rpc.border import Call
from coordinator.rpc.identity import Identity
from coordinator.rpc.jobs import caller_of, note_replay
from coordinator.rpc.pages import PageTokens
from coordinator.runtime.driver import Driver
from scaimind.v1 import mind_coordinator_pb2 as api

DEFAULT_PAGE_SIZE = 20
PAGE_BYTES = 1 << 20  # a page ends with the queue that fills it
QUESTION = "queues"


class QueueMethods:
    """SetQueue, ListQueues, RemoveQueue."""

    def __init__(self, driver: Driver, tokens: PageTokens) -> None:
        self._driver = driver
        self._view = driver.view
        self._tokens = tokens

    async def SetQueue(self, request: api.SetQueueRequest, call: Call) -> api.QueueSettings:
        """Sets a queue whole, new or changed."""
        command = commands.PutQueue(
            caller=caller_of(call, request),
            queue=queue_of(request),
            validate_only=request.validate_only,
        )
        reply = await self._driver.submit(command)
        note_replay(call, reply)
        assert reply.queue is not None
        return _settings(reply.queue)

    async def ListQueues(
        self, request: api.ListQueuesRequest, call: Call
    ) -> api.ListQueuesResponse:
        """A page of the queues that were set, by name."""
        after = self._tokens.read(request.page_token, question=QUESTION)
        size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
        queues, held = self._view.queues.settings, self._held(call.identity)
        names = sorted(queues)
        start = bisect_right(names, after[1]) if after else 0
        answer = api.ListQueuesResponse(total_count=len(names))
        taken_bytes = 0
        for name in names[start : start + size]:
            one = _settings(queues[name])
            one.held_devices = held[name] / WHOLE
            if not call.identity.is_operator:
                _keep_own(one, call.identity.tenant_id)
            answer.queues.append(one)
            taken_bytes += one.ByteSize()
            if taken_bytes >= PAGE_BYTES:
                break
        start += len(answer.queues)
        more = (names[start - 1], names[start - 1]) if start < len(names) else None
        answer.next_page_token = self._tokens.make(more, question=QUESTION)
        return answer

    async def RemoveQueue(
        self, request: api.RemoveQueueRequest, call: Call
    ) -> api.RemoveQueueResponse:
        """Lets a queue be as by default again."""
        command = commands.RemoveQueue(caller=caller_of(call, request), name=request.name)
        note_replay(call, await self._driver.submit(command))
        return api.RemoveQueueResponse(name=request.name)

    def _held(self, identity: Identity) -> Counter[str]:
        """Thousandths of devices by queue, with what is below it, of the jobs that the caller sees."""
        queues = self._view.queues.settings
        found: Counter[str] = Counter()
        for lease in self._view.held():
            job = self._view.job(lease.job_id)
            if not identity.is_operator and (job is None or job.tenant_id != identity.tenant_id):
                continue
            name = job.queue_name if job is not None else ROOT
            for _ in range(MOST_LEVELS):
                found[name] += lease.thousandths * len(lease.device_ids)
                if name == ROOT:
                    break
                name = queues[name].parent if name in queues else ROOT
        return found


def _keep_own(queue: api.QueueSettings, tenant_id: str) -> None:
    """Takes the limits of other tenants out."""
    for name in [one for one in queue.tenant_limits if one not in (ANYONE, tenant_id)]:
        del queue.tenant_limits[name]


def queue_of(request: api.SetQueueRequest) -> Queue:
    """The queue that a request sets."""
    order = request.order or api.QueueSettings.PRIORITY_FIFO
    given = {name: getattr(request, name) for name in OPTIONAL if request.HasField(name)}  # type: ignore[arg-type]
    return Queue(
        name=request.name,
        parent=request.parent or ROOT,
        guaranteed_devices=request.guaranteed_devices,
        max_devices=request.max_devices,
        tenant_limits=tuple(sorted(request.tenant_limits.items())),
        accepts=not request.closed,
        places=not request.cordoned,
        order=Order(api.QueueSettings.Order.Name(order)),
        preempts=request.preempts,
        **given,
    )


OPTIONAL = ("weight", "aging_permille")


def _settings(queue: Queue) -> api.QueueSettings:
    return api.QueueSettings(
        name=queue.name,
        parent="" if queue.name == ROOT else queue.parent,
        weight=queue.weight,
        guaranteed_devices=queue.guaranteed_devices,
        max_devices=queue.max_devices,
        tenant_limits=dict(queue.tenant_limits),
        closed=not queue.accepts,
        cordoned=not queue.places,
        order=api.QueueSettings.Order.Value(queue.order.value),
        preempts=queue.preempts,
        aging_permille=queue.aging_permille,
        version=queue.version,
        updated_at=convert.timestamp(queue.updated_at_ms),
    )
