"""The gRPC server: every service behind its border, health, reflection, keepalive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.core.records import Job
from coordinator.data.checker import Checker
from coordinator.rpc.agents import AgentMethods
from coordinator.rpc.batch import BatchMethods
from coordinator.rpc.border import handlers
from coordinator.rpc.change import ChangeMethods
from coordinator.rpc.cluster import ClusterMethods
from coordinator.rpc.data import DataMethods
from coordinator.rpc.documents import Documents
from coordinator.rpc.drain_plans import Plans
from coordinator.rpc.drains import DrainMethods
from coordinator.rpc.evaluations import EvaluationMethods
from coordinator.rpc.explain import ExplainMethods
from coordinator.rpc.fetching import Fetching
from coordinator.rpc.follow import FollowMethods
from coordinator.rpc.gate import Gate
from coordinator.rpc.identity import Authenticator
from coordinator.rpc.intake import Intake
from coordinator.rpc.jobs import JobMethods, JobReader
from coordinator.rpc.keys import KeyMethods
from coordinator.rpc.life import LifeMethods
from coordinator.rpc.pages import PageTokens
from coordinator.rpc.queues import QueueMethods
from coordinator.rpc.ranks import Ranks
from coordinator.rpc.rolling import RollingMethods
from coordinator.rpc.simulate import SimulateMethods
from coordinator.rpc.tls import ServerTls
from coordinator.rpc.unknown import Unknown
from coordinator.rpc.usage import UsageMethods
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.forecaster import Forecaster
from coordinator.runtime.leadership import Leadership
from coordinator.runtime.telemetry import Telemetry
from coordinator.runtime.waits import Waits
from coordinator.store.protocol import Store
from coordinator.streams.protocol import Streams
from scaimind.agent.v1 import agent_service_pb2
from scaimind.v1 import key_service_pb2, mind_coordinator_pb2

if TYPE_CHECKING:
    from scaimind.service.tokens import Tokens

REQUEST_BYTES_MAX = 16 * 1024 * 1024
RESPONSE_BYTES_MAX = 64 * 1024 * 1024
OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", RESPONSE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)
SERVICES = (
    mind_coordinator_pb2.DESCRIPTOR.services_by_name["MindCoordinator"],
    key_service_pb2.DESCRIPTOR.services_by_name["KeyService"],
    agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the servicers are made of."""

    driver: Driver
    leadership: Leadership
    store: Store
    streams: Streams
    clock: Clock
    telemetry: Telemetry
    api_secret: str
    page_secret: bytes
    join_token: str
    checker: Checker
    forecaster: Forecaster
    tokens: Tokens | None = None
    tls: ServerTls | None = None


class Server:
    """Serves the public API, the key service and the agents' API on one port."""

    def __init__(self, parts: Parts) -> None:
        self._server = grpc.aio.server(options=list(OPTIONS))
        self._health = health.aio.HealthServicer()
        self._view = parts.driver.view
        self._tls = parts.tls
        self._add_services(parts)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.full_name for service in SERVICES]
        reflection.enable_server_reflection(
            (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self._server.add_generic_rpc_handlers((Unknown(),))

    async def start(self, address: str) -> int:
        """Binds and answers calls, in bad health yet; answers the port.

        Raises:
            OSError: the address cannot be had, or the certificate cannot be used.
        """
        await self.set_serving(False)
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._tls.credentials())
        except (RuntimeError, ValueError) as error:
            raise OSError(f"cannot serve on {address}: {error}") from error
        if port == 0:
            raise OSError(f"cannot serve on {address}: the port is in use")
        await self._server.start()
        return int(port)

    async def set_serving(self, serving: bool) -> None:
        """Tells health checks of every service and of the whole."""
        known = health_pb2.HealthCheckResponse
        status = known.SERVING if serving else known.NOT_SERVING
        for name in ("", *(service.full_name for service in SERVICES)):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls, lets held ones go, and gives the others the grace."""
        self._view.close()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    def _add_services(self, parts: Parts) -> None:
        driver, store, streams = parts.driver, parts.store, parts.streams
        clock, telemetry = parts.clock, parts.telemetry
        authenticator = Authenticator(
            driver.view,
            clock,
            api_secret=parts.api_secret,
            join_token=parts.join_token,
            tokens=parts.tokens,
        )
        waits = Waits(driver, parts.forecaster, clock)
        usage = UsageMethods(driver.view, store, clock=clock, tokens=PageTokens(parts.page_secret))
        fetching = Fetching(clock)
        documents = Documents(
            store, streams, waits.wait_s, spent=usage.spent, prepared=fetching.progress
        )

        reader = JobReader(driver.view, _stored(store))
        tokens = PageTokens(parts.page_secret)
        gate = Gate(parts.leadership, driver.view)
        jobs = JobMethods(
            driver,
            store,
            streams,
            documents=documents,
            reader=reader,
            tokens=tokens,
            fetching=fetching,
            telemetry=telemetry,
            waits=waits,
        )
        public = (
            jobs,
            ClusterMethods(
                driver,
                store,
                telemetry=telemetry,
                tokens=tokens,
                clock=clock,
                wait_s=waits.wait_s,
                fetching=fetching,
            ),
            DrainMethods(driver, parts.forecaster, reader, clock=clock),
            RollingMethods(driver, Plans(parts.forecaster, reader, clock)),
            QueueMethods(driver, tokens),
            usage,
            ExplainMethods(parts.forecaster, reader, driver.view.rulings),
            SimulateMethods(parts.forecaster, clock=clock),
            ChangeMethods(driver, store, documents=documents, reader=reader),
            LifeMethods(driver, documents=documents, reader=reader, waits=waits),
            FollowMethods(driver.view, streams, reader),
            DataMethods(driver.view, parts.checker, fetching),
            BatchMethods(driver, documents=documents, jobs=jobs, fetching=fetching, waits=waits),
            EvaluationMethods(
                driver, streams, documents=documents, reader=reader, jobs=jobs, waits=waits
            ),
        )
        keys = (KeyMethods(driver, authenticator, clock, tokens=tokens, secret=parts.api_secret),)
        agents = (
            AgentMethods(
                driver,
                documents=documents,
                intake=Intake(streams, Ranks(driver.view, _stored(store)).are_known),
                telemetry=telemetry,
                clock=clock,
                fetching=fetching,
            ),
        )
        self._add((public, keys, agents), authenticator, gate)

    def _add(
        self, servicers: Sequence[Sequence[object]], authenticator: Authenticator, gate: Gate
    ) -> None:
        for service, several in zip(SERVICES, servicers, strict=True):
            handler = handlers(service, several, authenticator=authenticator, gate=gate)
            self._server.add_generic_rpc_handlers((handler,))


def _stored(store: Store) -> Callable[[str], Awaitable[Job | None]]:
    """Asks the store for a job, as it is then."""

    async def stored(job_id: str) -> Job | None:
        return await store.job(job_id)

    return stored
