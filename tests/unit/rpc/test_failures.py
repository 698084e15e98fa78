"""What an agent tells of a failure is kept within bounds, and shown as it was told."""

from __future__ import annotations

from coordinator.rpc.convert import TELEMETRY_BYTES, failure_message, failure_record
from scaimind.cli import failure
from scaimind.v1 import job_pb2, node_pb2

GIB = 1 << 30
WINDOW = node_pb2.TelemetryWindow(
    samples_count=12,
    host_cpu_percent_max=40.0,
    host_memory_used_bytes_max=200 * GIB,
    host_memory_total_bytes=512 * GIB,
    devices=[
        node_pb2.DeviceWindow(
            device_id="GPU-1",
            utilization_percent_mean=97.0,
            memory_used_bytes_max=79 * GIB,
            memory_total_bytes=80 * GIB,
            temperature_celsius_max=91.0,
            throttle_reasons=["HW_THERMAL_SLOWDOWN"],
            faults=[node_pb2.DeviceFault(code="XID_79", seen_count=1)],
        ),
        node_pb2.DeviceWindow(device_id="GPU-2"),
    ],
)


def told(window: node_pb2.TelemetryWindow) -> job_pb2.JobError:
    """The failure as it is shown, of which an agent told this."""
    error = job_pb2.JobError(category=job_pb2.JobError.USER_CODE, telemetry=window)
    return failure_message(failure_record(error))


def test_what_the_node_measured_is_shown_as_it_was_told() -> None:
    assert told(WINDOW).telemetry == WINDOW


def test_where_nothing_was_measured_nothing_is_shown() -> None:
    assert not told(node_pb2.TelemetryWindow()).HasField("telemetry")


def test_more_than_a_record_shall_carry_is_left_out_and_the_failure_stays() -> None:
    large = node_pb2.TelemetryWindow(devices=[node_pb2.DeviceWindow(fault="x" * TELEMETRY_BYTES)])
    shown = told(large)
    assert shown.category == job_pb2.JobError.USER_CODE
    assert not shown.HasField("telemetry")


def test_the_command_line_shows_it_in_a_line_for_the_machine_and_one_for_each_device() -> None:
    rows = failure.rows(job_pb2.Job(error=told(WINDOW)))
    texts = [text for name, text in rows if "GPU" in text or name == "the minute before"]
    assert texts == [
        "CPU 40 %, memory 200.0 of 512.0 GiB, disk 0.0 of 0.0 GiB",
        "GPU-1: busy 97 %, memory 79.0 of 80.0 GiB, 91 °C, HW_THERMAL_SLOWDOWN, XID_79 x1",
        "GPU-2: nothing told",
    ]
