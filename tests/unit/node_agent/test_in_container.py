"""What a container of a job is: its program, its folders, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node_agent import in_container
from node_agent.command import Refused
from node_agent.environment import folders
from node_agent.ranks import DetectedDevice
from node_agent.runtime.cgroups import _limits_1, _limits_2
from node_agent.runtime.protocol import Container
from node_agent.runtime.rules import ContainerRules
from node_agent.settings import Settings
from node_agent.supplies import NOTHING, Supplies
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

STORAGE = Path("/storage")
RULES = ContainerRules(
    "/engine", "7:8", network="host", mounts={Path("/data"): False, Path("/shared"): True}
)
GPU = DetectedDevice("GPU-1a", 3, "H100", "NVIDIA H100", 80)
SIM = DetectedDevice("sim-5", 5, "H100", "H100", 80, simulated=True)


def grant(**more: Any) -> agent_pb2.DesiredLease:
    job = SubmitJobRequest()
    job.resource_config.image = "a/b:1"
    spec = agent_pb2.LeaseSpec(job_id="job_1", lineage_id="job_0", job=job, world_size=1, **more)
    return agent_pb2.DesiredLease(lease_id="l", epoch=3, spec=spec)


def container(
    given: agent_pb2.DesiredLease, *devices: DetectedDevice, supplies: Supplies = NOTHING
) -> Container:
    places = folders(given.spec, STORAGE)
    folder = Path("/leases/l")
    return in_container.container_of(
        given,
        places,
        folder=folder,
        rules=RULES,
        storage_dir=STORAGE,
        devices=devices,
        supplies=supplies,
    )


def refused(given: agent_pb2.DesiredLease, supplies: Supplies = NOTHING) -> str:
    with pytest.raises(Refused) as caught:
        container(given, supplies=supplies)
    return str(caught.value).partition(":")[0]


def test_a_container_sees_the_folders_of_its_lease_and_no_other_of_the_node() -> None:
    found = container(grant(), GPU, SIM)
    assert {(str(mount.path), mount.writable) for mount in found.mounts} == {
        ("/storage/lineages/job_0/checkpoints", True),
        ("/storage/jobs/job_1/model", True),
        ("/storage/jobs/job_1/work", True),
    }
    assert found.gpus == ("GPU-1a",)
    assert (found.labels["mind.lease"], found.labels["mind.epoch"]) == ("l", "3")


def test_what_the_admin_shows_may_be_named_and_written_to_where_it_says_so() -> None:
    given = grant()
    given.spec.job.data_config.sources.add(path="/data/set")
    given.spec.job.output_config.output_uri = "file:///shared/out"
    assert Path("/shared/out") not in {mount.path for mount in container(given).mounts}
    given.spec.job.output_config.output_uri = "/data/out"
    assert refused(given) == "output_config.output_uri"


@pytest.mark.parametrize(
    "path", ["/etc", "/data/../etc/shadow", "/database", "/storage/jobs/job_2"]
)
def test_no_other_path_is_data(path: str) -> None:
    given = grant()
    given.spec.job.data_config.sources.add(path=path)
    assert refused(given) == "data_config.sources[0].path"


def test_a_retry_sees_the_checkpoints_of_the_lineage_that_the_coordinator_names() -> None:
    given = grant()
    given.spec.resume_from.uri = "file:///storage/lineages/job_9/checkpoints/5"
    (mount,) = (one for one in container(given).mounts if not one.writable)
    assert mount.path == STORAGE / "lineages/job_9/checkpoints"
    given.spec.resume_from.uri = ""
    given.spec.job.training_config.resume_from_checkpoint = "/storage/lineages/job_9/checkpoints/5"
    assert refused(given) == "training_config.resume_from_checkpoint"


@pytest.mark.parametrize(
    ("script", "args", "words"),
    [
        ("/app/train.py", "--lr '1 2'", ("python3", "-u", "/app/train.py", "--lr", "1 2")),
        ("module://pkg.train", "", ("python3", "-u", "-m", "pkg.train")),
        ("torchrun", "train", ("torchrun", "train")),
        ("/app/run", "", ("/app/run",)),
        ("", "", ()),
    ],
)
def test_a_program_is_one_of_the_container(script: str, args: str, words: tuple[str, ...]) -> None:
    framework = job_pb2.Framework(custom_script_path=script, config={"args": args})
    assert in_container.command(framework) == words


@pytest.mark.parametrize("script", ["train.py", "a/b", "s3://b/train.py", "module://a b"])
def test_a_program_that_is_none_of_the_container_is_refused(script: str) -> None:
    with pytest.raises(Refused, match="custom_script_path"):
        in_container.command(job_pb2.Framework(custom_script_path=script))


def test_where_nothing_may_run_or_nodes_cannot_meet_the_image_is_refused() -> None:
    with pytest.raises(Refused, match=r"resource_config\.image: this node runs no containers"):
        in_container.check(grant().spec, None)
    alone = replace(RULES, network="none")
    assert in_container.check(grant().spec, alone) is alone
    many = grant()
    many.spec.node_count = 2
    with pytest.raises(Refused, match="a network of their own"):
        in_container.check(many.spec, alone)


def test_limits_are_said_in_the_words_of_both_versions_of_control_groups() -> None:
    order = {"path": "/mind/a", "memory_bytes": 5000, "cpu_thousandths": 1500, "pids": 9}
    assert _limits_2(order) == {
        "pids.max": "9",
        "memory.max": "5000",
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
    }
    assert _limits_1(order)["cpu"]["cpu.cfs_quota_us"] == "150000"
    assert _limits_2({**order, "memory_bytes": 0, "cpu_thousandths": 0}) == {"pids.max": "9"}


@pytest.mark.parametrize(
    "words",
    [
        ("--container-engine", "tcp://10.0.0.1:2375"),
        ("--container-user", "0:0"),
        ("--container-user", "nobody"),
        ("--container-mounts", "/"),
        ("--container-mounts", "/a/../etc"),
        ("--rank-group", "../x"),
        ("--rank-user", "0:1"),
    ],
)
def test_settings_that_would_open_the_machine_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as ended:
        Settings.load("node_agent", words)
    assert ended.value.code == 2


def test_what_was_fetched_for_a_job_is_seen_by_its_containers_alone_and_where_it_wants_it() -> None:
    given = grant()
    given.spec.job.data_config.sources.add(path="s3://b/x.jsonl")
    given.spec.job.data_config.storage_mounts.add(
        source_uri="https://h/v.txt", mount_path="/mnt/v.txt", read_only=True
    )
    data, vocabulary, code = Path("/cache/1/x.jsonl"), Path("/cache/2/v.txt"), Path("/cache/3")
    supplies = Supplies({"s3://b/x.jsonl": data, "https://h/v.txt": vocabulary}, code)
    found = container(given, supplies=supplies).mounts
    assert {(one.path, one.target) for one in found if not one.writable} == {
        (data, None),
        (code, None),
        (vocabulary, None),
        (vocabulary, Path("/mnt/v.txt")),
    }


@pytest.mark.parametrize(
    ("source", "target", "read_only", "field"),
    [
        ("/etc", "/mnt", True, "source_uri"),
        ("/data", "/mnt", False, "read_only"),
        ("/shared/of/others", "/mnt", True, "mount_path"),
        ("/data", "/proc/x", True, "mount_path"),
        ("/data", "/storage/jobs", True, "mount_path"),
        ("/data", "/leases", True, "mount_path"),
        ("/data", "/mnt/../x", True, "mount_path"),
        ("https://h/v", "/mnt", False, "read_only"),
    ],
)
def test_no_mount_leads_out_of_what_is_shown_or_over_what_containers_need(
    source: str, target: str, read_only: bool, field: str
) -> None:
    given = grant()
    given.spec.job.data_config.storage_mounts.add(
        source_uri=source, mount_path=target, read_only=read_only
    )
    supplies = Supplies({"https://h/v": Path("/cache/v")})
    assert refused(given, supplies) == f"data_config.storage_mounts[0].{field}"


def test_a_folder_that_the_admin_shows_is_mounted_where_the_job_wants_it() -> None:
    given = grant()
    mounts = given.spec.job.data_config.storage_mounts
    mounts.add(source_uri="/data/set", mount_path="/mnt/set", read_only=True)
    mounts.add(source_uri="/shared", mount_path="/mnt/out")
    mounts.add(source_uri="/shared/of/me")
    found = {one.target: one for one in container(given).mounts if one.target}
    assert set(found) == {Path("/mnt/set"), Path("/mnt/out")}
    assert (found[Path("/mnt/out")].writable, found[Path("/mnt/set")].writable) == (True, False)
