"""What a node's admin says of what jobs run as, and no job can change."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ContainerRules:
    """What the node's admin says of containers; `engine` is the path of the engine's socket.

    `user` is `UID:GID`. `network` is `bridge`, `none`, `host` or a network of the engine. `mounts` maps
    folders of the node, which every container sees at the same path, to whether they may be written
    to. `gpus`: `nvidia` (the NVIDIA runtime's device requests), or the kind of a CDI device.
    """

    engine: str
    user: str
    network: str = "bridge"
    mounts: Mapping[Path, bool] = field(default_factory=dict)
    tmp_bytes: int = 1 << 30
    gpus: str = "nvidia"

    @property
    def owner(self) -> tuple[int, int]:
        """The numbers of `user`."""
        user, _, group = self.user.partition(":")
        return int(user), int(group)


@dataclass(frozen=True, slots=True)
class ProcessRules:
    """What the node's admin says of plain processes.

    `user`: the user and the group that ranks run as; None: those of the agent. `group`: the control
    group below which each rank gets one of its own, with its limits, as `/mind`; empty: none.
    `pids`: most processes and threads of a rank, in containers too. `python`: the interpreter of the
    scripts of ranks.
    """

    user: tuple[int, int] | None = None
    group: str = ""
    pids: int = 32_768
    python: str = sys.executable


@dataclass(frozen=True, slots=True)
class Rules:
    """All of it; no `containers`: a job that names an image does not run here.

    `upload_roots`: prefixes of stores of objects below which jobs may have checkpoints and outputs.
    """

    processes: ProcessRules = ProcessRules()
    containers: ContainerRules | None = None
    upload_roots: tuple[str, ...] = ()
