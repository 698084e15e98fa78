"""Samples are taken, kept within bounds, reported, and shown under DCGM's names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from grpc import RpcError
from prometheus_client.parser import text_string_to_metric_families

from node_agent.ranks import DetectedDevice
from node_agent.telemetry import TelemetryReporter, render
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.reporter import RING_SIZE
from node_agent.telemetry.samples import Host, Sample
from scaimind.agent.v1 import agent_service_pb2 as pb

GPU = DetectedDevice("GPU-1", 0, "H100", 'The "H100"\\\n', 80 << 30)
CORE = DetectedDevice("cpu-0", 0, "CPU", "A core", 1 << 30)
HOST = Host(25.0, 10, 20, 30, 40)
READING = Reading(50.0, 8 << 30, 80 << 30, 350.5, 61.0)


class OneGpu:
    """A probe whose GPU reads as it is told."""

    def __init__(self, *, failures: int = 0) -> None:
        self.reading = READING
        self.found = [GPU]
        self.failures = failures

    def devices(self) -> list[DetectedDevice]:
        return self.found

    def read(self) -> Mapping[str, Reading]:
        self.failures -= 1
        if self.failures >= 0:
            raise OSError("no such file")
        return {device.device_id: self.reading for device in self.found}

    def close(self) -> None:
        """Nothing is held."""


async def reports(
    probe: OneGpu,
    count: int,
    *,
    answer: Callable[[int], None] = lambda number: None,
    on_change: Callable[[TelemetryReporter], None] = lambda reporter: None,
) -> tuple[TelemetryReporter, list[pb.ReportTelemetryRequest]]:
    """Runs a reporter until it has sent so many reports; `answer` may raise at each."""
    sent: list[pb.ReportTelemetryRequest] = []
    done = asyncio.Event()

    async def report(request: pb.ReportTelemetryRequest) -> object:
        sent.append(request)
        if len(sent) >= count:
            done.set()
        answer(len(sent))
        return None

    typed: Callable[[pb.ReportTelemetryRequest], Awaitable[object]] = report
    reporter = TelemetryReporter(
        probe, typed, node_id="node-1", data_dir=Path("/"), interval_s=0.001
    )
    reporter.on_change = lambda: on_change(reporter)
    running = asyncio.create_task(reporter.run())
    await asyncio.wait_for(done.wait(), 90)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return reporter, sent


async def test_a_report_carries_the_host_and_every_device() -> None:
    _, sent = await reports(OneGpu(), 1)
    assert sent[0].node_id == "node-1"
    assert sent[0].host.memory_total_bytes > 0
    assert sent[0].host.disk_total_bytes > 0
    device = sent[0].devices["GPU-1"]
    assert device.utilization_percent == 50.0
    assert device.memory_used_bytes == 8 << 30
    assert device.power_watts == 350.5
    assert device.temperature_celsius == 61.0
    assert device.measured_at.ToMilliseconds() > 0


async def test_what_is_not_measured_is_not_sent() -> None:
    probe = OneGpu()
    probe.reading = Reading(fault="GPU is lost")
    _, sent = await reports(probe, 1)
    assert not sent[0].devices["GPU-1"].HasField("power_watts")


async def test_a_report_that_fails_is_followed_by_the_next() -> None:
    def fail(number: int) -> None:
        raise (RpcError("away"), TimeoutError(), ConnectionError())[number % 3]

    _, sent = await reports(OneGpu(), 6, answer=fail)
    assert len(sent) >= 6


async def test_a_measurement_that_fails_is_followed_by_the_next() -> None:
    reporter, sent = await reports(OneGpu(failures=2), 1)
    assert len(sent) >= 1
    assert reporter.samples


async def test_samples_are_kept_in_a_bounded_ring() -> None:
    reporter, _ = await reports(OneGpu(), 3)
    assert 1 <= len(reporter.samples) <= RING_SIZE == reporter.samples.maxlen


async def test_a_device_that_turns_bad_or_good_is_told_once_each_time() -> None:
    probe = OneGpu()
    told: list[bool] = []

    def turn(number: int) -> None:
        probe.reading = Reading(fault="lost") if number in (3, 4, 5) else READING

    await reports(
        probe, 9, answer=turn, on_change=lambda reporter: told.append(reporter.devices()[0].healthy)
    )
    assert told == [False, True]


async def test_a_gpu_that_is_partitioned_anew_is_told_once_each_time() -> None:
    probe = OneGpu()
    instances = [
        replace(GPU, device_id=f"MIG-{n}", gpu_id="GPU-1", profile="1g.10gb", instance=7 + n)
        for n in range(2)
    ]
    told: list[list[str]] = []

    def turn(number: int) -> None:
        probe.found = instances if number in (3, 4, 5) else [GPU]

    await reports(
        probe,
        9,
        answer=turn,
        on_change=lambda reporter: told.append([one.device_id for one in reporter.devices()]),
    )
    assert told == [["MIG-0", "MIG-1"], ["GPU-1"]]


def test_an_instance_has_the_labels_that_dcgms_exporter_gives_it() -> None:
    instance = replace(
        GPU, device_id="MIG-2", model="H100", gpu_id="GPU-1", profile="1g.10gb", instance=9
    )
    sample = Sample(1_000, HOST, {"MIG-2": Reading(memory_used_bytes=1 << 20)})
    text = render(sample, [instance], hostname="node-1")
    found = {s.name: s for f in text_string_to_metric_families(text) for s in f.samples}
    assert found["DCGM_FI_DEV_FB_USED"].labels == {
        "gpu": "0",
        "UUID": "GPU-1",
        "device": "nvidia0",
        "modelName": "H100",
        "Hostname": "node-1",
        "GPU_I_PROFILE": "1g.10gb",
        "GPU_I_ID": "9",
        "mig_uuid": "MIG-2",
    }
    assert "DCGM_FI_DEV_GPU_UTIL" not in text


def test_gpus_are_shown_under_dcgms_names_with_its_labels() -> None:
    sample = Sample(1_000, HOST, {"GPU-1": READING, "cpu-0": Reading(12.0)})
    text = render(sample, [GPU, CORE], hostname="node-1")
    found = {
        s.name: (s.value, s.labels) for f in text_string_to_metric_families(text) for s in f.samples
    }
    labels = {
        "gpu": "0",
        "UUID": "GPU-1",
        "device": "nvidia0",
        "modelName": 'The "H100"\\\n',
        "Hostname": "node-1",
    }
    assert found["DCGM_FI_DEV_GPU_UTIL"] == (50.0, labels)
    assert found["DCGM_FI_DEV_FB_USED"] == (8192.0, labels)
    assert found["DCGM_FI_DEV_FB_FREE"] == (73728.0, labels)
    assert found["DCGM_FI_DEV_POWER_USAGE"] == (350.5, labels)
    assert found["DCGM_FI_DEV_GPU_TEMP"] == (61.0, labels)
    assert found["mind_node_cpu_ratio"] == (0.25, {"Hostname": "node-1"})
    assert "cpu-0" not in text


def test_what_a_job_holds_carries_its_labels_and_the_newest_xid_is_shown() -> None:
    hot = replace(READING, throttle_reasons=("HW_THERMAL_SLOWDOWN",), energy_joules=2.5)
    sample = Sample(1_000, HOST, {"GPU-1": hot})
    holders = {"GPU-1": {"job_id": "job_1", "tenant_id": "acme"}}
    text = render(sample, [GPU], hostname="node-1", holders=holders, xids={"GPU-1": 79, "gone": 1})
    found = {s.name: s for f in text_string_to_metric_families(text) for s in f.samples}
    assert found["DCGM_FI_DEV_GPU_UTIL"].labels["job_id"] == "job_1"
    assert found["DCGM_FI_DEV_XID_ERRORS"].value == 79
    assert found["DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"].value == 64
    assert found["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"].value == 2500


def test_simulated_devices_are_marked_and_missing_values_left_out() -> None:
    device = DetectedDevice("sim-L4-0", 0, "L4", "Simulated L4", 1, simulated=True)
    sample = Sample(1_000, HOST, {"sim-L4-0": Reading(utilization_percent=3.0, fault="x")})
    text = render(sample, [device], hostname="node-1")
    assert 'simulated="true"' in text
    assert "DCGM_FI_DEV_POWER_USAGE" not in text
    assert 'mind_device_healthy{gpu="0",UUID="sim-L4-0"' in text
