"""What a rank sees: its environment variables, its folders and its copy of the job's configs.

The base is a short list of the agent's own variables, never its settings or secrets. The job's
`environment` comes on top, and what the agent itself sets wins over both.

`CUDA_VISIBLE_DEVICES` names real GPUs by UUID, is empty for a lease of CPU devices, and holds the
indices of simulated ones. Of instances of partitioned GPUs (MIG) each rank sees its own alone. Ranks
start in `<storage>/jobs/<job_id>/work`, which stays after the job, so that what a script writes to a relative
path is found again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from node_agent import meeting, sharing
from node_agent.command import local_path, refuse
from node_agent.files import file_name
from node_agent.ranks import CPU_TYPE, EVENTS, DetectedDevice
from node_agent.supplies import NOTHING, Supplies, uri_of
from node_agent.uploads.places import is_remote, restored_path, resumed_from
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

CONFIG_FILE = "config.json"
CONFIGS = (
    "training_config",
    "data_config",
    "resource_config",
    "output_config",
    "scheduling_config",
)
_BASE = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_LIBRARIES = ("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PASSED = (*_BASE, *_LIBRARIES)
_DEFAULTS = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
_ENVIRONMENT = "training_config.environment"


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a lease's results go; all absolute."""

    checkpoints: Path
    output: Path
    work: Path

    def make(self) -> None:
        """Makes them. OSError where the disk refuses."""
        for folder in self:
            folder.mkdir(parents=True, exist_ok=True)

    def make_for(self, owner: tuple[int, int], own: Folders) -> None:
        """Makes those that are the node's `own`, as a user's and a group's. OSError.

        Others are made by the job itself: whoever may write there could have put a link to anything in
        their way.
        """
        for folder in {*self} & {*own}:
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, *owner, follow_symlinks=False)

    def __iter__(self) -> Iterator[Path]:
        return iter((self.checkpoints, self.output, self.work))


def folders(spec: agent_pb2.LeaseSpec, storage_dir: Path) -> Folders:
    """The lease's folders: as the job says, else under the storage folder, to be uploaded from there.

    Raises:
        Refused: a URI that is not of this machine.
    """
    given = spec.job.output_config
    places = folders_of_node(spec, storage_dir)
    if given.checkpoint_uri and not is_remote(given.checkpoint_uri):
        checkpoints = local_path("output_config.checkpoint_uri", given.checkpoint_uri)
        places = replace(places, checkpoints=checkpoints)
    if given.output_uri and not is_remote(given.output_uri):
        output = local_path("output_config.output_uri", given.output_uri)
        places = replace(places, output=output)
    return places


def folders_of_node(spec: agent_pb2.LeaseSpec, storage_dir: Path) -> Folders:
    """The lease's folders where the job says nothing."""
    job = storage_dir / "jobs" / file_name(spec.job_id)
    checkpoints = storage_dir / "lineages" / file_name(spec.lineage_id) / "checkpoints"
    return Folders(checkpoints=checkpoints, output=job / "model", work=job / "work")


def lease_environment(
    spec: agent_pb2.LeaseSpec,
    places: Folders,
    *,
    devices: Sequence[DetectedDevice],
    agent_environ: Mapping[str, str] | None,
    folder: Path,
    address: str = meeting.LOOPBACK,
    supplies: Supplies = NOTHING,
) -> dict[str, str]:
    """The variables that all ranks of a lease share; `folder` is its own, `address` the node's.

    `agent_environ` is that of the agent, of which processes get a part; None for containers, whose image
    has one.

    Raises:
        Refused: a variable, a data source or a checkpoint that this node cannot serve.
    """
    cpus = sum(device.type == CPU_TYPE for device in devices)
    shared = {
        **_base(agent_environ),
        "OMP_NUM_THREADS": str(max(1, cpus // max(1, spec.local_world_size))),
        "PYTHONUNBUFFERED": "1",
        **meeting.interface_environment(spec, address),
        **_user_environment(spec.job.training_config.environment),
        **meeting.environment(spec),
        "CUDA_VISIBLE_DEVICES": ",".join(_visible(device) for device in devices if _is_gpu(device)),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        **sharing.environment(spec, devices, agent_environ=agent_environ),
        "MIND_JOB_ID": spec.job_id,
        "MIND_LINEAGE_ID": spec.lineage_id,
        "MIND_ATTEMPT": str(spec.attempt),
        "MIND_CHECKPOINT_DIR": str(places.checkpoints),
        "MIND_OUTPUT_DIR": str(places.output),
    }
    for number, path in enumerate(data_paths(spec.job.data_config, supplies)):
        shared[f"MIND_DATA_{number}_PATH"] = str(path)
    for number, mount in enumerate(spec.job.data_config.storage_mounts):
        name = f"data_config.storage_mounts[{number}].source_uri"
        there = mount.mount_path if agent_environ is None else ""
        where = there or str(supplies.path(name, mount.source_uri))
        shared[f"STORAGE_MOUNT_{number}_PATH"] = where
    if supplies.code:
        shared["MIND_SOURCE_DIR"] = str(supplies.code)
        known = shared.get("PYTHONPATH", "")
        shared["PYTHONPATH"] = f"{supplies.code}:{known}" if known else str(supplies.code)
    if resume := resume_path(spec, folder):
        shared["MIND_RESUME_FROM"] = str(resume)
    return shared


def resume_path(spec: agent_pb2.LeaseSpec, folder: Path) -> Path | None:
    """The checkpoint to go on from, if there is one; Refused where it is not of this machine.

    One of a store of objects is brought into the lease's `folder` before its ranks start.
    """
    given = resumed_from(spec)
    if is_remote(given):
        return restored_path(given, folder)
    return local_path("training_config.resume_from_checkpoint", given) if given else None


def data_paths(config: job_pb2.DataConfig, supplies: Supplies = NOTHING) -> list[Path]:
    """Where each source of data is; Refused where one is neither of this machine nor was brought here."""
    return [
        supplies.path(f"data_config.sources[{n}].path", uri_of(source))
        for n, source in enumerate(config.sources)
    ]


def rank_environment(
    shared: Mapping[str, str],
    folder: Path,
    *,
    rank: int,
    local_rank: int,
    instance: DetectedDevice | None = None,
) -> dict[str, str]:
    """The variables of one rank, from those that its lease shares; `folder` is the rank's.

    Where it has an `instance` of a partitioned GPU it sees that one alone, as device 0: CUDA shows no
    process more. Its LOCAL_RANK is 0 then, as with torchrun's --virtual-local-rank.
    """
    own = {}
    if instance is not None:
        own = {"CUDA_VISIBLE_DEVICES": instance.device_id, "LOCAL_RANK": "0"}
        if "NVIDIA_VISIBLE_DEVICES" in shared and not instance.simulated:
            own["NVIDIA_VISIBLE_DEVICES"] = instance.device_id
    return {
        **shared,
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        **own,
        "MIND_CONFIG": str(folder / CONFIG_FILE),
        "MIND_EVENTS": str(folder / EVENTS),
    }


def configs_json(job: SubmitJobRequest) -> bytes:
    """The job's five configs as one JSON object, named and valued as in REST."""
    configs = {name: _as_json(getattr(job, name)) for name in CONFIGS}
    return json.dumps(configs, ensure_ascii=False).encode()


def _as_json(message: Message) -> dict[str, Any]:
    """Protobuf's JSON, but with 64-bit integers as numbers."""
    content = json_format.MessageToDict(message, preserving_proto_field_name=True)
    for field, value in message.ListFields():
        if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
            content[field.name] = value
        elif isinstance(value, Message) and not isinstance(content[field.name], str):
            content[field.name] = _as_json(value)
        elif field.name == "sources":
            content[field.name] = [_as_json(source) for source in value]
    return content


def _user_environment(given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise refuse(_ENVIRONMENT, f"{name!r} cannot be an environment variable")
    return dict(given)


def _base(agent_environ: Mapping[str, str] | None) -> dict[str, str]:
    if agent_environ is None:
        return {}
    passed = {name: agent_environ[name] for name in _PASSED if name in agent_environ}
    return {**_DEFAULTS, **passed}


def _is_gpu(device: DetectedDevice) -> bool:
    return device.type != CPU_TYPE


def _visible(device: DetectedDevice) -> str:
    is_number = device.simulated and not device.is_instance
    return str(device.index) if is_number else device.device_id
