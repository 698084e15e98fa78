"""From a grant to what a runtime is told: folders are made, the spec becomes orders.

A lease lives in `<data_dir>/leases/<lease>.<epoch>/`: `lease.pb` (the grant with its spec) and one
folder `rank-<r>` for each local rank. `lease.pb` comes last, so that where it is all else is too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from google.protobuf.message import DecodeError

from node_agent import environment, in_container
from node_agent.command import SCRIPT, Refused, command, refuse
from node_agent.core.leases import Category, Fault
from node_agent.environment import Folders
from node_agent.files import file_name
from node_agent.ranks import DetectedDevice, ProvenCheckpoint, RankFiles
from node_agent.runtime.protocol import Container, Limits, Mount, RankOrder
from node_agent.runtime.rules import Rules
from node_agent.supplies import NOTHING, PINS_FILE, Supplies
from node_agent.uploads import places
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2

LEASE_FILE = "lease.pb"
MAX_LOCAL_RANKS = 1024
DEFAULT_KEEP_CHECKPOINTS = 3
GB = 1_000_000_000
_RANK_PREFIX = "rank-"


def lease_folder(leases_dir: Path, grant: agent_pb2.DesiredLease) -> Path:
    """The folder of a grant."""
    return leases_dir / f"{file_name(grant.lease_id)}.{grant.epoch}"


def rank_folders(grant: agent_pb2.DesiredLease, folder: Path) -> dict[int, Path]:
    """The folder of each local rank; none where the spec's count makes no sense."""
    spec = grant.spec
    if not 0 < spec.local_world_size <= MAX_LOCAL_RANKS or spec.first_rank < 0:
        return {}
    ranks = range(spec.first_rank, spec.first_rank + spec.local_world_size)
    return {rank: folder / f"{_RANK_PREFIX}{rank}" for rank in ranks}


def prepare(
    grant: agent_pb2.DesiredLease,
    folder: Path,
    *,
    storage_dir: Path,
    devices: Mapping[str, DetectedDevice],
    rules: Rules,
    agent_environ: Mapping[str, str],
    address: str,
    supplies: Supplies = NOTHING,
) -> list[RankOrder]:
    """Checks a grant, makes its folders, and returns one order per local rank. Blocks briefly.

    Raises:
        Refused: the job cannot run here as it is.
        OSError: the disk refuses.
    """
    spec = grant.spec
    if missing := [key for key in spec.device_ids if key not in devices]:
        raise Refused(Fault(Category.NODE_LOST, f"the node has no device {missing[0]} any more"))
    places.check(spec, rules.upload_roots)
    held = [devices[key] for key in spec.device_ids]
    instances = _instances(spec, held)
    plan = _plan(
        grant,
        folder,
        storage_dir=storage_dir,
        devices=held,
        rules=rules,
        agent_environ=agent_environ,
        address=address,
        supplies=supplies,
    )
    ranks = rank_folders(grant, folder)
    configs = environment.configs_json(spec.job)
    for path in ranks.values():
        path.mkdir(parents=True, exist_ok=True)
        (path / environment.CONFIG_FILE).write_bytes(configs)
    if supplies.objects:
        (folder / PINS_FILE).write_text(json.dumps(supplies.objects))
    (folder / LEASE_FILE).write_bytes(grant.SerializeToString())
    return [
        RankOrder(
            path=path,
            rank=rank,
            argv=plan.argv,
            env=environment.rank_environment(
                plan.shared,
                path,
                rank=rank,
                local_rank=rank - spec.first_rank,
                instance=instances.get(rank),
            ),
            cwd=plan.places.work,
            subject=SCRIPT,
            limits=_limits(spec, rules),
            container=plan.container and _of_rank(plan.container, path, instances.get(rank)),
        )
        for rank, path in ranks.items()
    ]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is the same for all ranks of a lease."""

    argv: tuple[str, ...]
    shared: Mapping[str, str]
    places: Folders
    container: Container | None = None


def _plan(
    grant: agent_pb2.DesiredLease,
    folder: Path,
    *,
    storage_dir: Path,
    devices: Sequence[DetectedDevice],
    rules: Rules,
    agent_environ: Mapping[str, str],
    address: str,
    supplies: Supplies,
) -> _Plan:
    """Checks a grant, and makes the folders of its results."""
    spec = grant.spec
    in_image = bool(spec.job.resource_config.image)
    framework = spec.job.training_config.framework
    results = environment.folders(spec, storage_dir)
    own = environment.folders_of_node(spec, storage_dir)
    script = supplies.script(framework)
    argv = (
        in_container.command(framework, script)
        if in_image
        else command(framework, python=rules.processes.python, script=script)
    )
    shared = environment.lease_environment(
        spec,
        results,
        devices=devices,
        agent_environ=None if in_image else agent_environ,
        folder=folder,
        address=address,
        supplies=supplies,
    )
    if in_image:
        allowed = in_container.check(spec, rules.containers)
        container = in_container.container_of(
            grant,
            results,
            folder=folder,
            rules=allowed,
            storage_dir=storage_dir,
            devices=devices,
            supplies=supplies,
        )
        results.make_for(allowed.owner, own)
        base = in_container.own_environment(container, results)
        return _Plan(argv, {**base, **shared}, results, container)
    shared |= _of_python(rules.processes.python, shared)
    if rules.processes.user is None:
        results.make()
    else:
        results.make_for(rules.processes.user, own)
        if "HOME" not in spec.job.training_config.environment:
            shared["HOME"] = str(results.work)
    return _Plan(argv, shared, results)


def _of_python(python: str, shared: Mapping[str, str]) -> dict[str, str]:
    """What a shell is told where a virtual environment that is not the agent's is activated."""
    if python == sys.executable:
        return {}
    folder = os.path.dirname(python)
    return {"PATH": f"{folder}:{shared['PATH']}", "VIRTUAL_ENV": os.path.dirname(folder)}


def _limits(spec: agent_pb2.LeaseSpec, rules: Rules) -> Limits:
    """A rank's part of what the job asked for."""
    needs, ranks = spec.job.resource_config, max(1, spec.world_size)
    return Limits(
        memory_bytes=round(needs.memory_gb * GB / ranks),
        cpu_thousandths=needs.cpu_count * 1000 // ranks,
        pids=rules.processes.pids,
    )


def _instances(
    spec: agent_pb2.LeaseSpec, held: Sequence[DetectedDevice]
) -> dict[int, DetectedDevice]:
    """The instance of a partitioned GPU that each rank has; {} where the lease holds none. Refused."""
    if not any(device.is_instance for device in held):
        return {}
    if len(held) != spec.local_world_size:
        text = f"{len(held)} instances of partitioned GPUs (MIG) are for as many ranks"
        text = f"{text}, not for {spec.local_world_size}: a process can use one"
        raise refuse("training_config.framework.distributed.world_size", text)
    return {spec.first_rank + number: device for number, device in enumerate(held)}


def _of_rank(container: Container, path: Path, instance: DetectedDevice | None) -> Container:
    """The container of one rank, with its own configs, and its own instance where it has one."""
    config = Mount(path / environment.CONFIG_FILE)
    gpus = container.gpus
    if instance is not None:
        gpus = tuple(gpu for gpu in gpus if gpu == instance.device_id)
    return replace(container, mounts=(*container.mounts, config), gpus=gpus)


def rank_files(
    grant: agent_pb2.DesiredLease, path: Path, *, rank: int, storage_dir: Path
) -> RankFiles:
    """What the spool has to know of a rank that was ordered."""
    spec = grant.spec
    output = spec.job.output_config
    keep = output.keep_checkpoints if output.HasField("keep_checkpoints") else 0
    return RankFiles(
        path=path,
        job_id=spec.job_id,
        lineage_id=spec.lineage_id,
        attempt=spec.attempt,
        lease_id=grant.lease_id,
        epoch=grant.epoch,
        rank=rank,
        checkpoint_dir=environment.folders(spec, storage_dir).checkpoints,
        keep_checkpoints=keep or DEFAULT_KEEP_CHECKPOINTS,
        remote=places.checkpoints_uri(spec),
        earlier=tuple(map(_proven, spec.earlier)),
        resumed=spec.resume_from.checkpoint_id,
        hang_after_ms=spec.job.scheduling_config.hang_after_seconds * 1000,
    )


def _proven(checkpoint: job_pb2.Checkpoint) -> ProvenCheckpoint:
    return ProvenCheckpoint(
        checkpoint_id=checkpoint.checkpoint_id,
        step=checkpoint.step,
        uri=checkpoint.uri,
        size_bytes=checkpoint.size_bytes,
        created_at_ms=checkpoint.created_at.ToMilliseconds(),
        digest=checkpoint.digest,
        attempt=checkpoint.attempt,
    )


def recover(folder: Path) -> tuple[agent_pb2.DesiredLease, dict[int, Path]]:
    """The grant that a folder was made for, and its ranks; no ranks where none was ordered.

    Where `lease.pb` is damaged the folder's name tells the grant, but not its spec.
    """
    grant = agent_pb2.DesiredLease()
    found = {
        int(path.name.removeprefix(_RANK_PREFIX)): path
        for path in folder.glob(f"{_RANK_PREFIX}*")
        if path.name.removeprefix(_RANK_PREFIX).isdecimal()
    }
    try:
        grant.ParseFromString((folder / LEASE_FILE).read_bytes())
    except FileNotFoundError:
        return grant, {}
    except (OSError, DecodeError):
        grant.Clear()
    if grant.lease_id:
        return grant, rank_folders(grant, folder) or found
    name, _, epoch = folder.name.rpartition(".")
    number = int(epoch) if epoch.isdecimal() else 0
    return agent_pb2.DesiredLease(lease_id=unquote(name), epoch=number), found
