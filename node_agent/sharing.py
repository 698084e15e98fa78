"""Shares of a device: how leases that hold parts of one GPU run beside each other.

All of them see the whole device. Where NVIDIA's Multi-Process Service runs on the machine it holds each to its
part of the threads and of the memory; elsewhere the part is what the job asked for and is told of, and
nothing keeps it from taking more. The node's label `gpu_sharing` says which of the two it is, so a job that
needs the limit to be real selects `gpu_sharing: mps`.

An instance of a GPU that is partitioned in hardware (MIG) is a device of its own, and given whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from node_agent.core.leases import WHOLE
from node_agent.ranks import CPU_TYPE, DetectedDevice
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

LABEL = "gpu_sharing"
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
DEFAULT_PIPES = "/tmp/nvidia-mps"
MIB = 1 << 20


def thousandths_of(spec: agent_pb2.LeaseSpec) -> int:
    """How much the lease holds of each of its devices."""
    given = spec.device_thousandths
    return given if 0 < given < WHOLE else WHOLE


def sharing_labels(
    devices: Sequence[DetectedDevice], agent_environ: Mapping[str, str]
) -> dict[str, str]:
    """What the node says of shares of its GPUs; nothing where it has none."""
    if all(one.type == CPU_TYPE or one.simulated or one.is_instance for one in devices):
        return {}
    return {LABEL: "mps" if _has_mps(agent_environ) else "advisory"}


def environment(
    spec: agent_pb2.LeaseSpec,
    devices: Sequence[DetectedDevice],
    *,
    agent_environ: Mapping[str, str] | None,
) -> dict[str, str]:
    """The variables of a lease that holds a share; none for one that holds whole devices.

    A training that keeps to its part by itself reads MIND_GPU_FRACTION (0.001 to 0.999) and
    MIND_GPU_MEMORY_BYTES.
    """
    thousandths = thousandths_of(spec)
    if thousandths == WHOLE or len(devices) != 1:
        return {}
    memory_bytes = devices[0].memory_bytes * thousandths // WHOLE
    found = {
        "MIND_GPU_FRACTION": f"{thousandths / WHOLE:g}",
        "MIND_GPU_MEMORY_BYTES": str(memory_bytes),
    }
    if devices[0].type == CPU_TYPE or devices[0].simulated:
        return found
    if agent_environ is None or not _has_mps(agent_environ):  # containers do not reach the service
        return found
    return found | {
        PIPES: agent_environ.get(PIPES, DEFAULT_PIPES),
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": f"{thousandths * 100 / WHOLE:g}",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": f"0={max(1, memory_bytes // MIB)}M",
    }


def _has_mps(agent_environ: Mapping[str, str]) -> bool:
    """Whether the service's control daemon has opened its pipe."""
    return (Path(agent_environ.get(PIPES, DEFAULT_PIPES)) / "control").exists()
