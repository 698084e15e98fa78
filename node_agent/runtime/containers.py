"""Containers of ranks, through the Docker API: made here, started by supervisors, removed here.

Theory of operation. A container is made for one rank, and is named after the rank's folder, so that
whoever knows the folder finds it: this agent, one that was started again, one that cleans up. It
carries labels (node, lease, epoch, rank). It is never started from here: see `container_body`. Ranks
print into the files of their folder, which are mounted, and not through the engine: nothing is lost
where the engine is killed, and nothing of it stands between a rank and its log.

What a container may do is what the node's admin says in `ContainerRules`, and nothing that a job says:
no capabilities, no new privileges, a read-only root, no folder of the node but the lease's own and
those that the admin mounts into all.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import requests
import structlog
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest
from docker.types import Mount as EngineMount

from node_agent.core.leases import Category, Fault
from node_agent.ranks import EVENTS, STDERR, STDOUT
from node_agent.runtime.body import TOO_LARGE
from node_agent.runtime.container_body import GATE
from node_agent.runtime.images import Images
from node_agent.runtime.protocol import CannotStart, Container, RankOrder
from node_agent.runtime.rules import ContainerRules
from node_agent.runtime.wire import API

LABEL = "mind.node"
PATH_LABEL = "mind.rank-folder"
TIMEOUT_S = 120
THREADS = 8
DEFAULT_PIDS = 32_768
WORD_BYTES_MAX = 128 << 10  # the kernel's limit
WORDS_BYTES_MAX = 1 << 20  # half of the kernel's
# The rank's program takes the place of the shell, which first waits to be told so. Where it cannot, the
# shell says so; bash needs a word more for it than others.
AT_GATE = (
    'gate=$1 out=$2 err=$3; shift 3; IFS= read -r _ <"$gate" || exit 125; '
    'mkdir -p "$MIND_CHECKPOINT_DIR" "$MIND_OUTPUT_DIR" 2>/dev/null; '
    "shopt -s execfail 2>/dev/null; trap 'echo refused >\"$gate\"' EXIT; "
    'exec "$@" >>"$out" 2>>"$err"; exit $?'
)
_OPEN_FILES = (EVENTS, STDOUT, STDERR)
_FAULTS = (DockerException, requests.RequestException, OSError)

log = structlog.get_logger()


class Containers:
    """The containers of one node. Its methods are coroutines and wait in threads of their own."""

    def __init__(self, rules: ContainerRules, *, mark: str) -> None:
        """Marks its containers with the node's `mark`; talks to nobody yet."""
        self._rules = rules
        self._mark = mark
        self._client = docker.APIClient(
            f"unix://{rules.engine}", version=API[2:], timeout=TIMEOUT_S, max_pool_size=THREADS
        )
        self._is_closed = False
        self._threads = ThreadPoolExecutor(THREADS, "containers")
        self._images = Images(self._client)

    async def fetch(self, name: str, *, on_pull: Callable[[], None]) -> Mapping[str, Any]:
        """Has the image there, and returns what the engine says of it; `on_pull` where it is fetched.

        May be cancelled. Raises:
            CannotStart: the image cannot be had.
        """
        return await self._images.get(name, on_pull=on_pull)

    async def create(
        self, order: RankOrder, env: Mapping[str, str], *, image: Mapping[str, Any]
    ) -> dict[str, str]:
        """Makes the container of a rank; returns what its supervisor has to know of it.

        Raises:
            CannotStart: the engine refuses.
        """
        made: dict[str, str] = await self._in_thread(self._create, order, env, image)
        return made

    async def remove(self, path: Path) -> None:
        """Ends and removes the container of a rank's folder, if there is one; logs what fails."""
        if self._is_closed:
            return  # the next agent will
        await self._in_thread(self._remove, _name(path))

    async def end_strays(self, known: Collection[Path]) -> None:
        """Ends and removes this node's containers whose ranks' folders are not `known`."""
        await self._in_thread(self._end_strays, {str(path) for path in known})

    async def close(self) -> None:
        """Lets go of the engine."""
        self._is_closed = True
        await asyncio.to_thread(self._threads.shutdown)
        self._images.close()
        self._client.close()

    async def _in_thread(self, work: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _create(
        self, order: RankOrder, env: Mapping[str, str], image: Mapping[str, Any]
    ) -> dict[str, str]:
        assert order.container is not None
        self._make_files(order.path, order.container)
        body = self._body(order, env, image=image)
        words = [*body["Entrypoint"], *body["Cmd"], *body["Env"]]
        sizes = [len(os.fsencode(word)) for word in words]
        if max(sizes) >= WORD_BYTES_MAX or sum(sizes) > WORDS_BYTES_MAX:
            raise CannotStart(Fault(Category.CONFIG, f"{order.subject}: {TOO_LARGE}"))
        name = _name(order.path)
        try:
            try:
                made = self._make(body, name)
            except APIError as error:
                if error.status_code != 409:
                    raise
                self._client.remove_container(name, force=True)  # of an agent that died just here
                made = self._make(body, name)
            self._check(made["Id"], order.container)
        except _FAULTS as error:
            raise CannotStart(engine_fault(error)) from None
        return {"engine": self._rules.engine, "id": made["Id"]}

    def _make(self, body: Mapping[str, Any], name: str) -> dict[str, Any]:
        made: dict[str, Any] = self._client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
        return made

    def _check(self, container_id: str, wanted: Container) -> None:
        """Some engines drop requests for GPUs without a word."""
        if not wanted.gpus:
            return
        given = self._client.inspect_container(container_id)["HostConfig"]
        if not given.get("DeviceRequests"):
            self._client.remove_container(container_id, force=True)
            message = "the node's container engine does not give GPUs to containers"
            raise CannotStart(Fault(Category.NODE_LOST, message))

    def _make_files(self, path: Path, container: Container) -> None:
        """Makes what the container writes to, as its user's; the folder itself stays the agent's."""
        try:
            with suppress(FileExistsError):
                os.mkfifo(path / GATE, 0o600)
            for name in _OPEN_FILES:
                os.close(os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            given = [mount.path for mount in container.mounts if mount.path.parent == path]
            for file in (path / GATE, *(path / name for name in _OPEN_FILES), *given):
                os.chown(file, *self._rules.owner)
        except OSError as error:
            fault = Fault(Category.STORAGE, f"the node's folders: {error.strerror}")
            raise CannotStart(fault) from None

    def _body(
        self, order: RankOrder, env: Mapping[str, str], *, image: Mapping[str, Any]
    ) -> dict[str, Any]:
        container = order.container
        assert container is not None
        at_gate = ["/bin/sh", "-c", AT_GATE, "sh"]
        files = [str(order.path / name) for name in (GATE, STDOUT, STDERR)]
        labels = {LABEL: self._mark, PATH_LABEL: str(order.path), **container.labels}
        return {
            "Image": image["Id"],
            "Entrypoint": [*at_gate, *files],
            "Cmd": program(order, image.get("Config") or {}),
            "Env": [f"{name}={value}" for name, value in env.items()],
            "User": self._rules.user,
            "WorkingDir": str(order.cwd),
            "Labels": labels,
            "HostConfig": self._host_config(order, container),
        }

    def _host_config(self, order: RankOrder, container: Container) -> dict[str, Any]:
        rules = self._rules
        mounts: dict[str, bool] = {str(path): writable for path, writable in rules.mounts.items()}
        mounts |= {str(order.path / name): True for name in (GATE, *_OPEN_FILES)}
        mounts |= {str(mount.path): mount.writable for mount in container.mounts}
        config: dict[str, Any] = {
            "Mounts": [
                EngineMount(path, path, type="bind", read_only=not writable)
                for path, writable in mounts.items()
            ],
            "NetworkMode": rules.network,
            "IpcMode": "private",
            "Init": True,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": order.limits.pids or DEFAULT_PIDS,
            "Tmpfs": {"/tmp": f"rw,nosuid,nodev,mode=1777,size={rules.tmp_bytes}"},
            "OomScoreAdj": 500,
        }
        if container.shm_bytes:
            config["ShmSize"] = container.shm_bytes
        limits = order.limits
        if limits.memory_bytes:
            config |= {"Memory": limits.memory_bytes, "MemorySwap": limits.memory_bytes}
        if limits.cpu_thousandths:
            config["NanoCpus"] = limits.cpu_thousandths * 1_000_000
        if container.gpus:
            config["DeviceRequests"] = [gpu_request(rules.gpus, container.gpus)]
        return config

    def _remove(self, name: str) -> None:
        try:
            self._client.remove_container(name, v=True, force=True)
        except NotFound:
            pass
        except _FAULTS as error:
            log.warning("container_not_removed", container=name, reason=str(error)[:200])

    def _end_strays(self, known: Collection[str]) -> None:
        try:
            found = self._client.containers(all=True, filters={"label": f"{LABEL}={self._mark}"})
        except _FAULTS as error:
            log.warning("containers_not_listed", reason=str(error)[:200])
            return
        for one in found:
            if one["Labels"].get(PATH_LABEL) not in known:
                self._remove(one["Id"])


def program(order: RankOrder, image: Mapping[str, Any]) -> list[str]:
    """The words that a container runs. CannotStart where neither the order nor the image has any."""
    if not order.argv:
        words = [*(image.get("Entrypoint") or ()), *(image.get("Cmd") or ())]
        if not words:
            message = f"{order.subject}: none is given, and the image has no program of its own"
            raise CannotStart(Fault(Category.CONFIG, message))
        return words
    return list(order.argv)


def gpu_request(kind: str, gpus: Collection[str]) -> DeviceRequest:
    """The request for GPUs by UUID: of the NVIDIA runtime, or of CDI devices of this kind."""
    if kind == "nvidia":
        return DeviceRequest(driver="nvidia", device_ids=list(gpus), capabilities=[["gpu"]])
    return DeviceRequest(driver="cdi", device_ids=[f"{kind}={gpu}" for gpu in gpus])


def engine_fault(error: Exception) -> Fault:
    """What the user is told of an engine that refused, or that is not there."""
    if isinstance(error, ImageNotFound):
        return Fault(Category.IMAGE, f"resource_config.image: {_said(error)}")
    if isinstance(error, APIError) and error.is_client_error():
        return Fault(Category.CONFIG, f"the container cannot be made: {_said(error)}")
    return Fault(Category.NODE_LOST, "the node's container engine does not answer as it should")


def _said(error: APIError) -> str:
    return " ".join(str(error.explanation or error).split())[:300]


def _name(path: Path) -> str:
    return f"mind-{hashlib.sha256(str(path).encode()).hexdigest()[:32]}"
