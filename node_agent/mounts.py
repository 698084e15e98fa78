"""Storage mounts of jobs in containers: what is shown where.

A mount is made by the engine with root's power, and follows links. So no path becomes a mount that a job
could have put a link into: what the cache holds, a folder that the admin shows to all, or what lies in one
of these that nobody may write to through it, and is no link.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from node_agent.command import refuse
from node_agent.runtime.protocol import Mount
from node_agent.runtime.rules import ContainerRules
from node_agent.supplies import Supplies
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

KEPT = tuple(map(Path, ("/proc", "/sys", "/dev", "/run/secrets")))


def storage_mounts(
    spec: agent_pb2.LeaseSpec,
    supplies: Supplies,
    *,
    rules: ContainerRules,
    own: Sequence[Path],
) -> Iterator[Mount]:
    """What a job's containers see besides their `own` folders; what has no `mount_path` is seen already.

    Raises:
        Refused: it cannot be shown, or not there, or not to be written to.
    """
    for number, mount in enumerate(spec.job.data_config.storage_mounts):
        name = f"data_config.storage_mounts[{number}]"
        path = supplies.path(f"{name}.source_uri", mount.source_uri)
        brought = path in supplies.fetched.values()
        if not brought:
            _check_shown(name, path, rules, writable=not mount.read_only)
        elif not mount.read_only:
            raise refuse(f"{name}.read_only", "what is fetched cannot be written back")
        if not mount.mount_path:
            continue
        target = Path(mount.mount_path)
        _check_target(name, target, own)
        if not brought and not _is_fast(path, rules):
            text = "jobs can write to the folder that holds it: name that folder, or no mount_path"
            raise refuse(f"{name}.mount_path", text)
        yield Mount(path, writable=not mount.read_only, target=target)


def _check_shown(name: str, path: Path, rules: ContainerRules, *, writable: bool) -> None:
    shown = [root for root in rules.mounts if path.is_relative_to(root)]
    if not shown:
        raise refuse(f"{name}.source_uri", f"containers of this node do not see it: {path}")
    if writable and not any(rules.mounts[root] for root in shown):
        text = f"containers of this node cannot write there: {path}"
        raise refuse(f"{name}.read_only", text)


def _check_target(name: str, target: Path, own: Sequence[Path]) -> None:
    plain = target.is_absolute() and os.path.normpath(target) == str(target) != "/"
    if not plain or any(target.is_relative_to(kept) for kept in KEPT):
        raise refuse(f"{name}.mount_path", "is no whole path, or one that containers need")
    if any(target.is_relative_to(one) or one.is_relative_to(target) for one in own):
        raise refuse(f"{name}.mount_path", "the job's own folders are there")


def _is_fast(path: Path, rules: ContainerRules) -> bool:
    """Whether nobody who runs here could make it lead elsewhere."""
    if path in rules.mounts:
        return True
    writable = any(path.is_relative_to(root) for root, to_write in rules.mounts.items() if to_write)
    return not writable and Path(os.path.realpath(path)) == path
