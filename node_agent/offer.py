"""What this node offers to the coordinator."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

import psutil

from node_agent.ranks import DetectedDevice
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import node_pb2


def offer(
    devices: Sequence[DetectedDevice],
    *,
    address: str,
    labels: Mapping[str, str],
    data_dir: Path,
    holds: Mapping[str, int] = MappingProxyType({}),
    fetch_bytes_per_s: int = 0,
    faults: Callable[[str], Sequence[node_pb2.DeviceFault]] = lambda device_id: (),
) -> agent_pb2.NodeOffer:
    """The offer of this machine; disk is that of `data_dir`, which exists.

    `holds` are hashes of what is at hand, with its bytes; `fetch_bytes_per_s`: how fast more of it comes, 0
    for not known; `faults` tells what was seen of a device.
    """
    return agent_pb2.NodeOffer(
        address=address,
        labels=labels,
        simulated=any(device.simulated for device in devices),
        devices=[_device(device, faults(device.device_id)) for device in devices],
        cpu_count=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        disk_bytes=shutil.disk_usage(data_dir).total,
        agent_version=_version(),
        holds=holds,
        holds_bytes=holds.values(),
        fetch_bytes_per_s=fetch_bytes_per_s,
    )


def _device(device: DetectedDevice, faults: Sequence[node_pb2.DeviceFault]) -> node_pb2.Device:
    return node_pb2.Device(
        device_id=device.device_id,
        index=device.index,
        type=device.type,
        model=device.model,
        memory_bytes=device.memory_bytes,
        simulated=device.simulated,
        healthy=device.healthy,
        faults=faults,
    )


def _version() -> str:
    try:
        return version("mindcoordinator")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"
