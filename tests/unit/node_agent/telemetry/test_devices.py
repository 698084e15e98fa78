"""Which devices a specification stands for."""

from __future__ import annotations

import os

import psutil
import pytest

from node_agent.telemetry import detect_devices
from node_agent.telemetry.local import SimulatedProbe
from node_agent.telemetry.models import GIB, short_type


def test_every_usable_core_is_a_device_and_the_memory_is_shared_out() -> None:
    devices = detect_devices("cpu")
    assert [d.index for d in devices] == sorted(os.sched_getaffinity(0))
    assert {d.type for d in devices} == {"CPU"}
    assert devices[0].device_id == f"cpu-{devices[0].index}"
    assert sum(d.memory_bytes for d in devices) <= psutil.virtual_memory().total
    assert not any(d.simulated for d in devices)


def test_simulated_devices_have_their_type_memory_and_mark() -> None:
    devices = detect_devices("sim:2xh100,1xL4")
    assert [(d.device_id, d.index, d.type, d.memory_bytes) for d in devices] == [
        ("sim-H100-0", 0, "H100", 80 * GIB),
        ("sim-H100-1", 1, "H100", 80 * GIB),
        ("sim-L4-0", 2, "L4", 24 * GIB),
    ]
    assert all(d.simulated and d.healthy for d in devices)


def test_simulated_instances_share_gpus_for_as_long_as_they_fit() -> None:
    devices = detect_devices("sim:1xH100,2xH100-3g.40gb,8xh100-1g.10gb,1xA100-7g.80gb,1xL4")
    assert [(d.type, d.index) for d in devices] == [
        ("H100", 0),
        *[("H100-3g.40gb", 1)] * 2,
        ("H100-1g.10gb", 1),
        *[("H100-1g.10gb", 2)] * 7,
        ("A100-7g.80gb", 3),
        ("L4", 4),
    ]
    assert {d.memory_bytes // GIB for d in devices if d.profile == "3g.40gb"} == {40}
    assert len({d.device_id for d in devices}) == len(devices)


def test_devices_of_one_type_in_two_parts_have_different_ids() -> None:
    assert len({d.device_id for d in detect_devices("sim:2xL4,2xL4")}) == 4


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("", "auto, cpu or sim:"),
        ("gpu", "auto, cpu or sim:"),
        ("sim:", "<count>x<type>"),
        ("sim:0xH100", "<count>x<type>"),
        ("sim:8", "<count>x<type>"),
        ("sim:8xH100,", "<count>x<type>"),
        ("sim:8xABACUS", "H100"),
        ("sim:8xH100-9g.10gb", "no profile"),
        ("sim:8xH100-mig", "no profile"),
        ("sim:8xH100-", "<count>x<type>"),
        ("sim:65xH100", "at most 64"),
        ("sim:9999xH100", "at most 64"),
        ("sim:33xH100,32xL4", "at most 64"),
    ],
)
def test_any_other_specification_is_refused_with_what_is_allowed(spec: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        detect_devices(spec)


def test_simulated_values_follow_from_id_and_time_alone() -> None:
    one = SimulatedProbe(["H100", "L4"], clock=lambda: 1_000.0)
    two = SimulatedProbe(["H100", "L4"], clock=lambda: 1_000.0)
    later = SimulatedProbe(["H100", "L4"], clock=lambda: 1_100.0)
    assert one.read() == two.read()
    assert one.read() != later.read()
    for reading in later.read().values():
        assert 0 <= (reading.utilization_percent or 0) <= 100
        assert (reading.memory_used_bytes or 0) <= (reading.memory_total_bytes or 0)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 NVL", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "RTX4070TISUPER"),
        ("NVIDIA RTX A6000", "A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX6000ADA"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTXPRO6000"),
        ("NVIDIA TITAN V", "TITANV"),
        ('Strange "Thing"\n9' + "x" * 99, "STRANGETHING9" + "X" * 19),
        ("", "UNKNOWN"),
    ],
)
def test_the_type_is_the_short_name_of_the_model(model: str, name: str) -> None:
    assert short_type(model) == name
