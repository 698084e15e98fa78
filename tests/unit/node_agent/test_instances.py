"""Instances of partitioned GPUs (MIG): each rank has one and sees no other; the canary tries one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from node_agent import orders
from node_agent.canary import Canary
from node_agent.command import Refused
from node_agent.ranks import DetectedDevice
from node_agent.runtime.protocol import RankOrder
from node_agent.runtime.rules import ContainerRules, ProcessRules, Rules
from node_agent.sharing import sharing_labels
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

GPU = DetectedDevice("GPU-0", 0, "H100", "NVIDIA H100", 80 << 30)
INSTANCES = [
    DetectedDevice(
        f"MIG-{number}",
        1,
        "H100-1g.10gb",
        "NVIDIA H100 MIG 1g.10gb",
        10 << 30,
        gpu_id="GPU-1",
        profile="1g.10gb",
        instance=7 + number,
    )
    for number in range(3)
]
PROCESSES = ProcessRules(user=None, group="", pids=1000, python="/usr/bin/python3")


def prepared(
    tmp_path: Path, devices: Sequence[DetectedDevice], *, ranks: int, image: str = ""
) -> list[RankOrder]:
    """The orders for a lease of these devices."""
    job = SubmitJobRequest()
    job.resource_config.image = image
    job.training_config.framework.custom_script_path = "/bin/true"
    spec = agent_pb2.LeaseSpec(
        job_id="job_1",
        lineage_id="job_1",
        job=job,
        device_ids=[device.device_id for device in devices],
        first_rank=4,
        local_world_size=ranks,
        world_size=8,
        node_count=1,
    )
    rules = Rules(PROCESSES, ContainerRules("/engine", "7:8"), ())
    return orders.prepare(
        agent_pb2.DesiredLease(lease_id="l", epoch=1, spec=spec),
        tmp_path / "l.1",
        storage_dir=tmp_path / "storage",
        devices={device.device_id: device for device in devices},
        rules=rules,
        agent_environ={},
        address="10.0.0.1",
    )


def test_each_rank_sees_its_own_instance_alone_as_device_0(tmp_path: Path) -> None:
    found = prepared(tmp_path, INSTANCES, ranks=3)
    assert [one.env["CUDA_VISIBLE_DEVICES"] for one in found] == ["MIG-0", "MIG-1", "MIG-2"]
    assert [one.env["LOCAL_RANK"] for one in found] == ["0", "0", "0"]
    assert [one.env["RANK"] for one in found] == ["4", "5", "6"]
    assert {one.env["LOCAL_WORLD_SIZE"] for one in found} == {"3"}
    assert all("NVIDIA_VISIBLE_DEVICES" not in one.env for one in found)


def test_each_container_is_given_its_own_instance_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.chown", lambda *args, **more: None)
    found = prepared(tmp_path, INSTANCES, ranks=3, image="localhost/a:1")
    assert [one.container.gpus for one in found if one.container] == [
        ("MIG-0",),
        ("MIG-1",),
        ("MIG-2",),
    ]
    for one in found:
        assert one.container is not None
        assert (one.env["NVIDIA_VISIBLE_DEVICES"],) == one.container.gpus
        assert (one.env["CUDA_VISIBLE_DEVICES"],) == one.container.gpus


def test_whole_gpus_are_all_seen_by_all_ranks_of_their_node(tmp_path: Path) -> None:
    both = [GPU, DetectedDevice("GPU-9", 9, "H100", "NVIDIA H100", 80 << 30)]
    found = prepared(tmp_path, both, ranks=2)
    assert [one.env["CUDA_VISIBLE_DEVICES"] for one in found] == ["GPU-0,GPU-9"] * 2
    assert [one.env["LOCAL_RANK"] for one in found] == ["0", "1"]


def test_a_rank_is_not_given_more_instances_than_a_process_can_use(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        prepared(tmp_path, INSTANCES[:2], ranks=1)
    assert "distributed.world_size: 2 instances" in caught.value.fault.message


def test_a_node_that_has_instances_alone_offers_no_shares() -> None:
    assert sharing_labels(INSTANCES, {}) == {}
    assert sharing_labels([GPU, *INSTANCES], {}) == {"gpu_sharing": "advisory"}


async def test_the_canary_tries_each_instance_in_a_process_of_its_own(tmp_path: Path) -> None:
    # a stand-in for the Python of ranks, which says what it was asked, and that its first device fails
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'read -r asked; echo "$CUDA_VISIBLE_DEVICES $asked" >> ' + str(tmp_path / "asked") + "\n"
        'echo "{\\"failures\\": {\\"MIG-1\\": \\"it is wrong\\"}}"\n'
    )
    python.chmod(0o755)
    rules = ProcessRules(user=None, group="", pids=1000, python=str(python))
    devices = [GPU, *INSTANCES]
    canary = Canary(lambda: devices, rules)
    over = asyncio.Event()
    canary.on_change = over.set
    ids = [device.device_id for device in devices]
    canary.desire(agent_pb2.DesiredCanary(number=1, device_ids=ids))
    async with asyncio.timeout(60):
        await over.wait()
    found = canary.report()
    assert found is not None
    # what a process says of devices that it did not try is not believed
    assert [(one.device_id, one.message) for one in found.failures] == [("MIG-1", "it is wrong")]
    said = [line.partition(" ") for line in (tmp_path / "asked").read_text().splitlines()]
    asked = sorted((seen, json.loads(line)["devices"]) for seen, _, line in said)
    assert asked == [(id, [id]) for id in sorted(ids)]
    await canary.close()
