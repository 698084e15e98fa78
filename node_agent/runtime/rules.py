"""What a node's admin says of containers, and no job can change."""

from __future__ import annotations

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
    pids: int = 32_768
    tmp_bytes: int = 1 << 30
    gpus: str = "nvidia"
