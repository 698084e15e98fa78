"""The agents' service: the observed picture in, the desired picture out; logs and metrics; telemetry."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import aclosing

import structlog

from coordinator.core.commands import JoinNode, ObservedLease, SyncNode
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    WHOLE,
    Checkpoint,
    Device,
    Job,
    Kind,
    Lease,
    LeaseAction,
    LeaseState,
    Offer,
)
from coordinator.rpc import convert
from coordinator.rpc.ahead import Ahead, pin_image
from coordinator.rpc.border import Call
from coordinator.rpc.documents import Documents
from coordinator.rpc.fetching import Fetching
from coordinator.rpc.intake import Intake
from coordinator.rpc.nodes import canary_of, faults_of, put_canary
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.telemetry import Sample, Telemetry
from coordinator.runtime.view import Watch
from scaimind.agent.v1 import agent_service_pb2 as api

PORTS_FIRST = 20_000
PORTS_COUNT = 12_000  # below the range that Linux hands out to clients
DEVICE_ID_MAX = 256
STATES = {state.value: state for state in LeaseState if state is not LeaseState.GRANTED}

log = structlog.get_logger("coordinator.agents")


class AgentMethods:
    """Join, Sync, Push, ReportTelemetry."""

    def __init__(
        self,
        driver: Driver,
        *,
        documents: Documents,
        intake: Intake,
        telemetry: Telemetry,
        clock: Clock,
        fetching: Fetching,
    ) -> None:
        self._driver = driver
        self._view = driver.view
        self._documents = documents
        self._intake = intake
        self._telemetry = telemetry
        self._clock = clock
        self._fetching = fetching
        self._ahead = Ahead(driver.view, documents, fetching)
        self._held: dict[str, Watch] = {}
        self._told: dict[str, dict[bytes, ObservedLease]] = {}  # what each node's agent told last

    async def Sync(self, request: api.SyncRequest, call: Call) -> api.SyncResponse:
        """Takes the observed picture; answers when the desired one is new, or after the hold."""
        node_id = request.node_id
        command = _sync_command(request, self._leases_of(request))
        watch = self._view.watch(Kind.NODE, node_id)
        before = self._held.get(node_id)
        self._held[node_id] = watch
        if before is not None:
            before.wake()  # a newer call answers the older one, which its agent may have given up
        try:
            reply = await self._driver.submit(command)
            if not reply.superseded and not reply.stale:
                self._fetching.prepared(node_id, request.leases)
            if reply.superseded:
                log.warning("agent_superseded", node_id=node_id, incarnation=request.incarnation)
                return api.SyncResponse(superseded=True, leader_epoch=self._view.epoch)
            if self._view.revision(node_id) == request.seen_revision and not reply.stale:
                await watch.wait(request.hold_ms / 1000)
            return await self._desired(request)
        finally:
            self._view.unwatch(Kind.NODE, node_id, watch)
            if self._held.get(node_id) is watch:
                del self._held[node_id]

    async def Join(self, request: api.JoinRequest, call: Call) -> api.JoinResponse:
        """Keeps the digest of a node's credential, for ever and for nobody else."""
        command = JoinNode(node_id=request.node_id, sha256=request.credential_sha256)
        await self._driver.submit(command)
        return api.JoinResponse()

    async def Push(
        self, requests: AsyncIterator[api.PushRequest], call: Call
    ) -> AsyncIterator[api.PushResponse]:
        """Makes batches durable, and acknowledges each."""
        async with aclosing(self._intake.take(requests)) as responses:
            async for response in responses:
                yield response

    async def ReportCache(
        self, request: api.ReportCacheRequest, call: Call
    ) -> api.ReportCacheResponse:
        """Keeps what the cache of a known node holds."""
        self._check_known(request.node_id)
        self._fetching.hold(request, self._view.nodes)
        return api.ReportCacheResponse()

    async def ReportTelemetry(
        self, request: api.ReportTelemetryRequest, call: Call
    ) -> api.ReportTelemetryResponse:
        """Keeps the newest telemetry of a known node."""
        self._check_known(request.node_id)
        sample = Sample(
            at_ms=self._clock.now_ms(),
            host=request.host.SerializeToString(),
            devices={key: value.SerializeToString() for key, value in request.devices.items()},
        )
        self._telemetry.put(request.node_id, sample)
        return api.ReportTelemetryResponse()

    def _check_known(self, node_id: str) -> None:
        if node_id not in self._view.nodes:
            raise Refusal(Reason.NODE_NOT_FOUND, f"there is no node {node_id}")

    def _leases_of(self, request: api.SyncRequest) -> tuple[ObservedLease, ...]:
        """The leases that are told; those that were told so before are not read again."""
        before = self._told.pop(request.node_id, {})
        told: dict[bytes, ObservedLease] = {}
        for lease in request.leases:
            data = lease.SerializeToString()
            told[data] = before.get(data) or _observed(lease)
        if told:
            self._told[request.node_id] = told
        return tuple(told.values())

    async def _desired(self, request: api.SyncRequest) -> api.SyncResponse:
        """The desired picture of one moment; what changes while documents are read is sent next."""
        node_id = request.node_id
        response = api.SyncResponse(
            revision=self._view.revision(node_id), leader_epoch=self._view.epoch
        )
        if node_id in self._view.nodes:
            put_canary(response, self._view.nodes[node_id].health)
        known = {(lease.lease_id, lease.epoch) for lease in request.leases}
        specs: list[tuple[api.LeaseSpec, str]] = []
        for lease in self._view.desired_of_node(node_id):
            desired = response.leases.add(
                lease_id=lease.lease_id,
                epoch=lease.epoch,
                action=api.DesiredLease.Action.Value(lease.action.value),
                grace_ms=lease.grace_ms,
                fence_after_ms=lease.fence_after_ms,
                save=lease.save,
                checkpoint_ids=[one.checkpoint_id for one in self._uploaded(lease)],
            )
            is_new = (lease.lease_id, lease.epoch) not in known
            if is_new and lease.action is LeaseAction.RUN:
                self._specify(desired.spec, lease)
                specs.append((desired.spec, lease.job_id))
        if specs:
            bodies = await self._documents.bodies(dict.fromkeys(job_id for _, job_id in specs))
            for spec, job_id in specs:
                if job_id not in bodies:
                    log.error("document_missing", job_id=job_id)
                spec.job.MergeFromString(bodies.get(job_id, b""))
                pin_image(spec, self._view.jobs.get(job_id))
        if response.revision != request.seen_revision:
            response.expected.extend(await self._ahead.of(node_id))
        return response

    def _specify(self, spec: api.LeaseSpec, lease: Lease) -> None:
        job = self._view.jobs[lease.job_id]
        assert job.attempt is not None
        shares = job.attempt.shares
        spec.job_id = job.job_id
        spec.lineage_id = job.lineage_id
        spec.tenant_id = job.tenant_id
        spec.attempt = lease.attempt
        spec.tokens.update(self._fetching.tokens(job.job_id))
        spec.device_ids.extend(lease.device_ids)
        if lease.thousandths < WHOLE:
            spec.device_thousandths = lease.thousandths
        spec.first_rank = lease.first_rank
        spec.local_world_size = lease.local_world_size
        spec.world_size = job.demand.world_size or job.demand.device_count
        spec.node_rank = lease.node_rank
        spec.node_count = len(shares)
        master = self._view.nodes.get(shares[0].node_id)
        spec.master_address = master.offer.address if master else ""
        if len(shares) > 1:
            seed = zlib.crc32(f"{job.job_id}.{lease.attempt}".encode())
            spec.master_port = PORTS_FIRST + seed % PORTS_COUNT
        resume = _resume_from(job)
        if resume is not None:
            spec.resume_from.CopyFrom(convert.checkpoint_message(resume))
        earlier = (x for x in job.checkpoints if x.attempt not in (0, lease.attempt))
        spec.earlier.extend(map(convert.checkpoint_message, earlier))

    def _uploaded(self, lease: Lease) -> list[Checkpoint]:
        """The checkpoints of a lease's job that lie in a store of objects."""
        job = self._view.jobs[lease.job_id]
        return [one for one in job.checkpoints if not one.uri.startswith("file:")]


def _resume_from(job: Job) -> Checkpoint | None:
    if job.resume_checkpoint_id:
        wanted = job.resume_checkpoint_id
        return next((one for one in job.checkpoints if one.checkpoint_id == wanted), None)
    return job.checkpoints[-1] if job.checkpoints else None


def _sync_command(request: api.SyncRequest, leases: tuple[ObservedLease, ...]) -> SyncNode:
    offer = request.offer
    if not all(0 < len(one.device_id) <= DEVICE_ID_MAX for one in offer.devices):
        text = f"ids of devices have 1 to {DEVICE_ID_MAX} characters"
        raise Refusal(Reason.INVALID_ARGUMENT, text, violations=(("offer.devices", text),))
    unknown = [0] * (len(offer.holds) - len(offer.holds_bytes))
    held = dict(sorted(zip(offer.holds, [*offer.holds_bytes, *unknown], strict=False)))
    return SyncNode(
        node_id=request.node_id,
        incarnation=request.incarnation,
        generation=request.generation,
        sequence=request.sequence,
        offer=Offer(
            devices=tuple(
                Device(
                    device_id=one.device_id,
                    index=one.index,
                    type=one.type,
                    model=one.model,
                    memory_bytes=one.memory_bytes,
                    simulated=one.simulated,
                    healthy=one.healthy,
                    faults=faults_of(one),
                )
                for one in offer.devices
            ),
            address=offer.address,
            labels=tuple(sorted((key, value) for key, value in offer.labels.items() if key)),
            simulated=offer.simulated,
            cpu_count=max(offer.cpu_count, 0),
            memory_bytes=max(offer.memory_bytes, 0),
            disk_bytes=max(offer.disk_bytes, 0),
            agent_version=offer.agent_version,
            holds=tuple(held),
            holds_bytes=tuple(held.values()) if any(held.values()) else (),
            fetch_bytes_per_s=max(offer.fetch_bytes_per_s, 0),
        ),
        leases=leases,
        canary=canary_of(request),
    )


def _observed(lease: api.ObservedLease) -> ObservedLease:
    started = [convert.milliseconds(one.started_at) for one in lease.ranks]
    ended = [convert.milliseconds(one.ended_at) for one in lease.ranks]
    return ObservedLease(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        # a state that only a newer agent knows is no evidence of anything, least of all of an end
        state=STATES.get(lease.state, LeaseState.ACCEPTED),
        done=lease.done,
        stopped=lease.stopped,
        failure=convert.failure_record(lease.error) if lease.HasField("error") else None,
        checkpoints=tuple(convert.checkpoint_record(one) for one in lease.checkpoints),
        checkpointing=lease.checkpointing,
        saved=lease.saved,
        image_digest=lease.image_digest,
        retired=tuple(lease.retired),
        silent_since_ms=convert.milliseconds(lease.silent_since),
        telemetry=convert.measured(lease.telemetry),
        output_model_uri=lease.output_model_uri,
        started_at_ms=max(started, default=0),
        ended_at_ms=max(ended, default=0),
    )
