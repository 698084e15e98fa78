"""Settings of the node agent: flags, `MIND_…` variables, a TOML file."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from pathlib import Path

from pydantic import Field, field_validator

from node_agent.data_settings import DataSettings
from node_agent.runtime.rules import ContainerRules, ProcessRules, Rules
from scaimind.service.settings import check_server, split_address

NOBODY = 65534
GB = 1_000_000_000
_USER = re.compile(r"[1-9][0-9]{0,9}:[0-9]{1,10}")
_UPLOAD_ROOT = re.compile(r"(s3|gs)://[a-z0-9][a-z0-9._-]+(/[^/?#*\[\]]+)*/?")
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _default_node_id() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:128]
    return name if _NODE_ID.fullmatch(name) else "node"


def _default_user() -> str:
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{NOBODY}:{NOBODY}"


class Settings(DataSettings):
    """Everything that an agent can be told."""

    coordinator: str = Field(
        default="127.0.0.1:50051",
        description="coordinator, as HOST:PORT; several parted by commas",
    )
    data_dir: Path = Field(
        default=Path(".mind/node"), description="where leases and unsent output are kept; local"
    )
    storage_dir: Path | None = Field(
        default=None,
        description="where checkpoints and models go, best shared by all nodes"
        " (default: storage, in the data directory)",
    )
    node_id: str = Field(
        default_factory=_default_node_id, description="name of this node (default: the host's)"
    )
    devices: str = Field(
        default="auto", description="what to offer: auto, cpu, or simulated as sim:8xH100"
    )
    address: str = Field(
        default="127.0.0.1", description="address at which other nodes reach this one"
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="labels that jobs select by, as key=value"
    )
    join_token: str = Field(default="", description="token with which the node joins", repr=False)
    join_token_file: Path | None = Field(default=None, description="file that holds the join token")
    hold_ms: int = Field(
        default=5000, ge=100, le=60_000, description="longest time a sync call is held"
    )

    upload_roots: str = Field(
        default="",
        description="s3:// and gs:// prefixes below which jobs may have their checkpoints and outputs, parted"
        " by commas; {tenant} in one stands for the job's tenant; default: none",
    )
    metrics: str | None = Field(
        default=None,
        description="HOST:PORT to serve Prometheus what is measured on; nowhere by default",
    )

    rank_user: str = Field(
        default="",
        description="who ranks run as that are processes, as UID:GID (default: the agent's)",
    )
    rank_group: str = Field(
        default="",
        description="control group below which each rank gets one with its limits, as /mind (default:"
        " none, and processes may use what there is)",
    )
    rank_pids: int = Field(
        default=32_768, ge=16, le=4_194_304, description="most processes and threads of a rank"
    )
    rank_python: Path = Field(
        default=Path(sys.executable),
        description="Python of ranks that are processes, such as that of a virtual environment"
        " (default: the agent's)",
    )
    container_engine: str = Field(
        default="",
        description="socket of a container engine (Docker or podman), as unix:///run/docker.sock;"
        " empty: jobs that name an image are refused here",
    )
    container_user: str = Field(
        default_factory=_default_user,
        description="who containers run as, as UID:GID (default: the agent's own, never root)",
    )
    container_network: str = Field(
        default="bridge",
        description="network of containers: none, bridge, host (the node's own, which jobs on several"
        " nodes need), or one that the engine knows",
    )
    container_mounts: list[str] = Field(
        default_factory=list,
        description="folders of the node that every container sees, as /PATH or /PATH:rw",
    )
    container_tmp_gb: float = Field(
        default=1.0, gt=0, le=100_000, description="size of /tmp of a container, in memory"
    )
    container_gpus: str = Field(
        default="nvidia",
        description="how containers get GPUs: nvidia (device requests), or a kind of CDI device"
        " such as nvidia.com/gpu",
    )

    @field_validator("upload_roots")
    @classmethod
    def _are_prefixes(cls, value: str) -> str:
        for root in filter(None, value.split(",")):
            if not _UPLOAD_ROOT.fullmatch(root):
                raise ValueError(f"{root!r} is no prefix s3://BUCKET/… or gs://BUCKET/…")
        return value

    @field_validator("metrics")
    @classmethod
    def _is_page(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @field_validator("rank_user")
    @classmethod
    def _may_become(cls, value: str) -> str:
        if value and not _USER.fullmatch(value):
            raise ValueError("UID:GID, both numbers, and the first not 0")
        if value and os.getuid():
            raise ValueError("only an agent that is root can run ranks as another user")
        return value

    @field_validator("rank_group")
    @classmethod
    def _is_group(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/[A-Za-z0-9_][A-Za-z0-9_.@-]*)+", value):
            raise ValueError("a path below the root of the control groups, as /mind")
        return value

    @field_validator("container_engine")
    @classmethod
    def _is_engine(cls, value: str) -> str:
        if value and not value.startswith("unix:///"):
            raise ValueError("a socket of this machine, as unix:///run/docker.sock")
        return value

    @field_validator("container_user")
    @classmethod
    def _is_user(cls, value: str) -> str:
        if not _USER.fullmatch(value):
            raise ValueError("UID:GID, both numbers, and the first not 0: containers are not root")
        return value

    @field_validator("container_mounts")
    @classmethod
    def _are_folders(cls, value: list[str]) -> list[str]:
        for one in value:
            path = Path(one.removesuffix(":rw"))
            if not path.is_absolute() or ".." in path.parts or path == Path("/"):
                raise ValueError(f"{one!r} is not /PATH or /PATH:rw")
        return value

    @field_validator("coordinator")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return check_server(value)

    @field_validator("node_id")
    @classmethod
    def _is_node_id(cls, value: str) -> str:
        if not _NODE_ID.fullmatch(value):
            raise ValueError("a letter or digit, then up to 127 letters, digits, '.', '_', '-'")
        return value

    @property
    def storage(self) -> Path:
        """The storage folder, absolute."""
        return Path(os.path.abspath(self.storage_dir or self.data_dir / "storage"))

    @property
    def cache(self) -> Path:
        """The folder of the data cache, absolute."""
        return Path(os.path.abspath(self.cache_dir or self.data_dir / "cache"))

    def cache_bytes(self) -> int:
        """What the data cache may hold. OSError where its disk cannot be looked at."""
        if self.cache_gb is not None:
            return round(self.cache_gb * GB)
        return shutil.disk_usage(self.data_dir).total // 10

    @property
    def rules(self) -> Rules:
        """What this node's admin says of what ranks run as."""
        user, _, group = self.rank_user.partition(":")
        processes = ProcessRules(
            user=(int(user), int(group)) if user else None,
            group=self.rank_group,
            pids=self.rank_pids,
            python=os.path.abspath(self.rank_python),
        )
        containers = self._container_rules() if self.container_engine else None
        roots = tuple(filter(None, self.upload_roots.split(",")))
        return Rules(processes, containers, upload_roots=roots)

    def _container_rules(self) -> ContainerRules:
        return ContainerRules(
            engine=self.container_engine.removeprefix("unix://"),
            user=self.container_user,
            network=self.container_network,
            mounts={
                Path(one.removesuffix(":rw")): one.endswith(":rw") for one in self.container_mounts
            },
            tmp_bytes=round(self.container_tmp_gb * GB),
            gpus=self.container_gpus,
        )

    def token(self) -> str:
        """The join token, "" for none. OSError where its file cannot be read."""
        if self.join_token_file is not None:
            return self.join_token_file.read_text().strip()
        return self.join_token
