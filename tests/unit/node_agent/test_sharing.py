"""What a lease that holds a share of a device is told, and what a node says of shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.ranks import CPU_TYPE, DetectedDevice
from node_agent.sharing import environment, sharing_labels, thousandths_of
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

GIB = 1 << 30
GPU = DetectedDevice("GPU-1a", 3, "H100", "NVIDIA H100", 80 * GIB)
CPU = DetectedDevice("cpu-0", 0, CPU_TYPE, "Xeon", 8 * GIB)
SIMULATED = DetectedDevice("sim-5", 5, "H100", "H100", 80 * GIB, simulated=True)


@pytest.fixture
def with_mps(tmp_path: Path) -> dict[str, str]:
    """The environment of an agent on whose machine the service runs."""
    (tmp_path / "control").touch()
    return {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}


@pytest.fixture
def without_mps(tmp_path: Path) -> dict[str, str]:
    """The environment of an agent on whose machine the service does not run."""
    return {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "nothing")}


def told(thousandths: int, device: DetectedDevice, environ: dict[str, str]) -> dict[str, str]:
    spec = agent_pb2.LeaseSpec(device_thousandths=thousandths)
    return environment(spec, [device], agent_environ=environ)


@pytest.mark.parametrize("given", [0, 1000, 1001, -1])
def test_a_lease_of_whole_devices_is_told_of_no_share(given: int, with_mps: dict[str, str]) -> None:
    assert thousandths_of(agent_pb2.LeaseSpec(device_thousandths=given)) == 1000
    assert told(given, GPU, with_mps) == {}


@pytest.mark.parametrize("device", [GPU, CPU, SIMULATED])
def test_a_share_is_told_with_its_memory_whoever_enforces_it(
    device: DetectedDevice, without_mps: dict[str, str]
) -> None:
    assert told(250, device, without_mps) == {
        "MIND_GPU_FRACTION": "0.25",
        "MIND_GPU_MEMORY_BYTES": str(device.memory_bytes // 4),
    }


def test_where_the_service_runs_it_is_told_the_limits_of_real_gpus(
    with_mps: dict[str, str],
) -> None:
    limits = told(125, GPU, with_mps)
    assert limits["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "12.5"
    assert limits["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=10240M"
    assert limits["CUDA_MPS_PIPE_DIRECTORY"] == with_mps["CUDA_MPS_PIPE_DIRECTORY"]
    assert "CUDA_MPS_PIPE_DIRECTORY" not in told(125, SIMULATED, with_mps)
    assert "CUDA_MPS_PIPE_DIRECTORY" not in told(125, CPU, with_mps)


def test_a_node_says_whether_shares_of_its_gpus_are_limits(
    with_mps: dict[str, str], without_mps: dict[str, str]
) -> None:
    assert sharing_labels([CPU, SIMULATED], without_mps) == {}
    assert sharing_labels([GPU, CPU], without_mps) == {"gpu_sharing": "advisory"}
    assert sharing_labels([GPU], with_mps) == {"gpu_sharing": "mps"}
