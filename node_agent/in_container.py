"""From a lease whose job names an image to what each of its containers is.

A container sees the lease's own folders under the paths that they have on the node, so that no variable
and no event has to be translated; besides these what the image holds, and the folders that the node's
admin shows to all. What a job names by a path has to be in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from node_agent import environment
from node_agent.command import ARGS, MODULE, SCRIPT, arguments, module_name, refuse
from node_agent.environment import Folders
from node_agent.mounts import storage_mounts
from node_agent.ranks import CPU_TYPE, DetectedDevice
from node_agent.runtime.protocol import Container, Mount
from node_agent.runtime.rules import ContainerRules
from node_agent.supplies import NOTHING, Supplies
from node_agent.uploads.places import is_remote, resumed_from
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2

PYTHON = "python3"
IMAGE = "resource_config.image"
GB = 1_000_000_000
ALONE = ("none", "bridge", "default", "slirp4netns", "pasta")
_KEPT_PREFIXES = ("LD_", "NVIDIA_")


def check(spec: agent_pb2.LeaseSpec, rules: ContainerRules | None) -> ContainerRules:
    """The rules under which a lease may run its image here.

    Raises:
        Refused: none are run here, or not such as the job needs.
    """
    if rules is None:
        raise refuse(IMAGE, "this node runs no containers (--container-engine of its agent)")
    if rules.network in ALONE and spec.node_count > 1:
        text = "containers of this node have a network of their own, which other nodes do not reach"
        raise refuse(IMAGE, f"{text} (--container-network of its agent)")
    for name in spec.job.training_config.environment:
        if name.startswith(_KEPT_PREFIXES):
            text = f"{name} cannot be set for a container; its program may set it"
            raise refuse("training_config.environment", text)
    return rules


def command(framework: job_pb2.Framework, script: Path | None = None) -> tuple[str, ...]:
    """The words that run in the image; none where the image's own program is meant.

    A name without a slash is a program of the image's PATH. `script` is where the script lies that was
    brought here for the job.

    Raises:
        Refused: the script's path cannot be one of a container, or `args` has open quotes.
    """
    given = framework.custom_script_path
    args = arguments(framework.config.get("args", ""))
    if not given:
        if args:
            raise refuse(ARGS, "arguments need a script, and none is given")
        return ()
    if given.startswith(MODULE):
        return (PYTHON, "-u", "-m", module_name(given), *args)
    path = str(script) if script else given.removeprefix("file://")
    if "\0" in path or "://" in path:
        raise refuse(SCRIPT, "it has to be a path in the container")
    if not path.startswith("/") and ("/" in path or path.endswith(".py")):
        raise refuse(SCRIPT, "in a container it has to be a whole path, from / on")
    return (PYTHON, "-u", path, *args) if path.endswith(".py") else (path, *args)


def container_of(
    grant: agent_pb2.DesiredLease,
    places: Folders,
    *,
    folder: Path,
    rules: ContainerRules,
    storage_dir: Path,
    devices: Sequence[DetectedDevice],
    supplies: Supplies = NOTHING,
) -> Container:
    """What every rank's container of a lease is, whose own folder is `folder`; `config.json` of each
    rank is not in it yet.

    Raises:
        Refused: the job names a folder that containers do not see.
    """
    spec = grant.spec
    needs = spec.job.resource_config
    return Container(
        image=needs.image,
        mounts=(
            *_mounts(spec, places, folder=folder, rules=rules, storage_dir=storage_dir),
            *_supplied(spec, supplies, rules=rules),
            *storage_mounts(spec, supplies, rules=rules, own=(storage_dir, folder)),
        ),
        gpus=tuple(one.device_id for one in devices if one.type != CPU_TYPE and not one.simulated),
        shm_bytes=round(needs.shm_gb * GB),
        together=f"{grant.lease_id}.{grant.epoch}" if spec.local_world_size > 1 else "",
        labels={
            "mind.lease": grant.lease_id,
            "mind.epoch": str(grant.epoch),
            "mind.job": spec.job_id,
            "mind.attempt": str(spec.attempt),
        },
    )


def own_environment(container: Container, places: Folders) -> Mapping[str, str]:
    """What a container's environment has beyond that of processes."""
    return {
        "HOME": str(places.work),
        "NVIDIA_VISIBLE_DEVICES": ",".join(container.gpus) or "void",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }


def _mounts(
    spec: agent_pb2.LeaseSpec,
    places: Folders,
    *,
    folder: Path,
    rules: ContainerRules,
    storage_dir: Path,
) -> list[Mount]:
    own = environment.folders_of_node(spec, storage_dir)
    mounts = []
    for field, path, mine in (
        ("output_config.checkpoint_uri", places.checkpoints, own.checkpoints),
        ("output_config.output_uri", places.output, own.output),
        ("", places.work, own.work),
    ):
        if path == mine:
            mounts.append(Mount(path, writable=True))
        elif not _is_shown(path, rules, to_write=True):
            raise refuse(field, f"containers of this node cannot write there: {path}")
    resume = environment.resume_path(spec, folder)
    if is_remote(resumed_from(spec)) and resume is not None:
        return [*mounts, Mount(resume)]
    if resume is None or resume.is_relative_to(places.checkpoints) or _is_shown(resume, rules):
        return mounts
    return [*mounts, Mount(_checkpoints_of_lineage(resume, spec, storage_dir=storage_dir))]


def _supplied(
    spec: agent_pb2.LeaseSpec, supplies: Supplies, *, rules: ContainerRules
) -> Iterator[Mount]:
    """What was brought here, by itself: of what the cache holds a container sees its own alone."""
    brought = {*supplies.fetched.values()} | ({supplies.code} if supplies.code else set())
    yield from (Mount(path) for path in sorted(brought))
    for number, path in enumerate(environment.data_paths(spec.job.data_config, supplies)):
        if path not in brought and not _is_shown(path, rules):
            field = f"data_config.sources[{number}].path"
            raise refuse(field, f"containers of this node do not see it: {path}")


def _checkpoints_of_lineage(resume: Path, spec: agent_pb2.LeaseSpec, *, storage_dir: Path) -> Path:
    """The folder of another lineage's checkpoints that holds the one to go on from.

    Its parent is the agent's alone, so that it is no link; and only the coordinator may name one.
    """
    lineages = storage_dir / "lineages"
    parts = resume.relative_to(lineages).parts if resume.is_relative_to(lineages) else ()
    if len(parts) < 3 or parts[1] != "checkpoints" or ".." in parts or not spec.resume_from.uri:
        field = "training_config.resume_from_checkpoint"
        raise refuse(field, f"containers of this node do not see it: {resume}")
    return lineages / parts[0] / parts[1]


def _is_shown(path: Path, rules: ContainerRules, *, to_write: bool = False) -> bool:
    return any(
        path.is_relative_to(shown) and (writable or not to_write)
        for shown, writable in rules.mounts.items()
    )
