"""Reads the probe and the machine again and again, keeps the newest values, and reports them.

Telemetry is shown, not stored: values live in a bounded ring, the newest on disk too for the next start of the
agent, and a report that fails is simply followed by the next one. Only what changes a decision, a device turned
bad or good again, or a GPU partitioned anew, is told through `on_change`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import RpcError

from node_agent.ranks import DetectedDevice
from node_agent.telemetry.faults import Faults
from node_agent.telemetry.kept_samples import KeptSamples
from node_agent.telemetry.probe import Probe
from node_agent.telemetry.samples import Host, Sample
from scaimind.agent.v1 import agent_service_pb2 as pb
from scaimind.v1 import node_pb2

INTERVAL_S = 5.0
REPORT_TIMEOUT_S = 5.0
LOOK_TIMEOUT_S = 1.0
LEAST_INTERVAL_S = 0.1  # what the processor did in less time than that says nothing
RING_SIZE = 360
MEASURED = tuple(
    field.name
    for field in node_pb2.DeviceTelemetry.DESCRIPTOR.fields
    if field.name != "measured_at"
)

Report = Callable[[pb.ReportTelemetryRequest], Awaitable[object]]
_log = structlog.get_logger()


def read_host(data_dir: Path) -> Host:
    """Measures this machine; CPU time is counted since the last call."""
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(data_dir))
    network, blocks = psutil.net_io_counters(), psutil.disk_io_counters()
    return Host(
        cpu_percent=psutil.cpu_percent(),
        memory_used_bytes=memory.total - memory.available,
        memory_total_bytes=memory.total,
        disk_used_bytes=disk.used,
        disk_total_bytes=disk.total,
        network_received_bytes=network.bytes_recv if network else 0,
        network_sent_bytes=network.bytes_sent if network else 0,
        disk_read_bytes=blocks.read_bytes if blocks else 0,
        disk_written_bytes=blocks.write_bytes if blocks else 0,
    )


class TelemetryReporter:
    """Samples every `interval_s` and gives each sample to `report`."""

    def __init__(
        self,
        probe: Probe,
        report: Report,
        *,
        node_id: str,
        data_dir: Path,
        interval_s: float = INTERVAL_S,
        kept: KeptSamples | None = None,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.samples: deque[Sample] = deque(maxlen=RING_SIZE)
        self.earlier = (
            kept.load() if kept else []
        )  # what another agent has measured before this one
        self._kept = kept
        self._probe = probe
        self._report = report
        self._node_id = node_id
        self._data_dir = data_dir
        self._interval_s = interval_s
        self._faults: dict[str, str] = {}
        self._offered = {d.device_id: d.healthy for d in self.devices()}
        self.faults = Faults()
        self._wanted = asyncio.Event()
        self._looking: asyncio.Future[None] | None = None
        psutil.cpu_percent()  # the first sample measures from here

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._wanted.clear()
            looking, self._looking = self._looking, None
            try:
                sample = await asyncio.to_thread(self._measure)
            except OSError as error:
                _log.warning("telemetry_not_measured", reason=str(error))
            else:
                self.samples.append(sample)
                self._compare(sample)
                _settle(looking)
                await self._send(sample)
            _settle(looking)
            await self._rest()

    async def look(self) -> None:
        """Measures at once, and returns once that is done; after a second at the latest."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_future()
        self._wanted.set()
        await asyncio.wait((self._looking,), timeout=LOOK_TIMEOUT_S)

    def devices(self) -> list[DetectedDevice]:
        """The devices as they were found last, with the health that was read last."""
        return [
            replace(d, healthy=not self._faults[d.device_id]) if d.device_id in self._faults else d
            for d in self._probe.devices()
        ]

    def _measure(self) -> Sample:
        readings = self._probe.read()
        sample = Sample(time.time_ns() // 1_000_000, read_host(self._data_dir), readings)
        if self._kept is not None:
            self._kept.put(sample)
        return sample

    def _compare(self, sample: Sample) -> None:
        before = self._offered
        self._faults = {device_id: r.fault for device_id, r in sample.readings.items()}
        after = self._offered = {d.device_id: d.healthy for d in self.devices()}
        if not self.faults.take(sample.readings) and before == after:
            return
        for device_id, healthy in after.items():
            if before.get(device_id, True) != healthy:
                reason = self._faults.get(device_id, "")
                _log.warning("device_health", device_id=device_id, healthy=healthy, reason=reason)
        if before.keys() != after.keys():
            new, gone = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
            _log.info("devices_changed", new=new, gone=gone)
        self.on_change()

    async def _rest(self) -> None:
        least_s = min(LEAST_INTERVAL_S, self._interval_s)
        await asyncio.sleep(least_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval_s - least_s):
                await self._wanted.wait()

    async def _send(self, sample: Sample) -> None:
        request = to_request(sample, node_id=self._node_id)
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation.
            async with asyncio.timeout(REPORT_TIMEOUT_S):
                await self._report(request)
        except (RpcError, TimeoutError, OSError) as error:
            _log.debug("telemetry_not_reported", reason=type(error).__name__)


def _settle(looking: asyncio.Future[None] | None) -> None:
    if looking is not None and not looking.done():
        looking.set_result(None)


def to_request(sample: Sample, *, node_id: str) -> pb.ReportTelemetryRequest:
    """The sample as it is sent."""
    at = Timestamp(
        seconds=sample.measured_at_ms // 1000,
        nanos=sample.measured_at_ms % 1000 * 1_000_000,
    )
    host = node_pb2.HostTelemetry(
        measured_at=at,
        cpu_percent=sample.host.cpu_percent,
        memory_used_bytes=sample.host.memory_used_bytes,
        memory_total_bytes=sample.host.memory_total_bytes,
        disk_used_bytes=sample.host.disk_used_bytes,
        disk_total_bytes=sample.host.disk_total_bytes,
        network_received_bytes=sample.host.network_received_bytes,
        network_sent_bytes=sample.host.network_sent_bytes,
        disk_read_bytes=sample.host.disk_read_bytes,
        disk_written_bytes=sample.host.disk_written_bytes,
    )
    devices = {
        device_id: node_pb2.DeviceTelemetry(
            measured_at=at, **{name: getattr(reading, name) for name in MEASURED}
        )
        for device_id, reading in sample.readings.items()
    }
    return pb.ReportTelemetryRequest(node_id=node_id, host=host, devices=devices)
