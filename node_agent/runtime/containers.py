"""Containers of ranks, through the Docker API: made here, started by supervisors, removed here.

Theory of operation. A container is made for one rank, and is named after the rank's folder, so that
whoever knows the folder finds it: this agent, one that was started again, one that cleans up. It
carries labels (node, lease, epoch, rank). It is never started from here: see `container_body`. Ranks
print into the files of their folder, which are mounted, and not through the engine: nothing is lost
where the engine is killed, and nothing of it stands between a rank and its log.

What a container may do is what the node's admin says in `ContainerRules`, and nothing that a job says:
no capabilities, no new privileges, a read-only root, no folder of the node but the lease's own and
those that the admin mounts into all.

Ranks of one lease meet at their loopback and share memory. Their containers live and die one by one, so
both belong to a container more that does nothing, and stays until the last of them is removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import docker
import requests
import structlog
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import DeviceRequest
from docker.types import Mount as EngineMount

from node_agent.cache.pace import Pace
from node_agent.core.leases import Category, Fault
from node_agent.ranks import EVENTS, STDERR, STDOUT
from node_agent.runtime import podman, wire
from node_agent.runtime.body import TOO_LARGE
from node_agent.runtime.container_body import GATE
from node_agent.runtime.images import Images
from node_agent.runtime.protocol import CannotStart, Container, Mount, RankOrder
from node_agent.runtime.rules import ContainerRules

LABEL = "mind.node"
NVIDIA = "nvidia"
PATH_LABEL = "mind.rank-folder"
TOGETHER_LABEL = "mind.together"
HOST = "host"
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

    def __init__(self, rules: ContainerRules, *, mark: str, pace: Pace | None = None) -> None:
        """Marks its containers with the node's `mark`; talks to nobody yet. `pace`: that of images too."""
        self._rules = rules
        self._mark = mark
        self._client = docker.APIClient(
            f"unix://{rules.engine}", version=wire.API[2:], timeout=TIMEOUT_S, max_pool_size=THREADS
        )
        self._is_closed = False
        self._shared = threading.Lock()  # while it is seen to what containers share
        self._sharing: dict[str, str] = {}  # what those shared with others that are being removed
        self._threads = ThreadPoolExecutor(THREADS, "containers")
        self._images = Images(self._client, pace or Pace())

    async def image_sizes(self) -> dict[str, int]:
        """Bytes of the images that are there, by their names."""
        return await self._images.sizes()

    async def digest(self, name: str) -> str:
        """What the name of an image stands for; it is there from now on. "" where no registry knows it.

        May be cancelled. Raises:
            CannotStart: the image cannot be had.
        """
        return await self._images.digest(name)

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

    async def remove(self, path: Path) -> bool:
        """Ends and removes the container of a rank's folder, if there is one; False where that failed."""
        if self._is_closed:
            return False  # the next agent will
        return bool(await self._in_thread(self._remove, _name(path)))

    async def end_strays(self, known: Callable[[], Collection[Path]]) -> bool:
        """Ends and removes this node's containers of folders that are not `known`; False where that failed.

        It is asked in another thread, once it is clear which containers there are.
        """
        if self._is_closed:
            return False
        return bool(await self._in_thread(self._end_strays, known))

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
            with self._shared if order.container.together else nullcontext():
                return self._create_in(body, name, wanted=order.container)
        except _FAULTS as error:
            raise CannotStart(engine_fault(error)) from None

    def _create_in(self, body: dict[str, Any], name: str, *, wanted: Container) -> dict[str, str]:
        if wanted.together:
            body["HostConfig"] |= self._share(body, wanted.together)
        try:
            made = self._make(body, name, wanted=wanted)
        except APIError as error:
            if error.status_code != 409:
                raise
            self._client.remove_container(name, force=True)  # of an agent that died just here
            made = self._make(body, name, wanted=wanted)
        return {"engine": self._rules.engine, "id": made["Id"]}

    def _share(self, body: Mapping[str, Any], together: str) -> dict[str, Any]:
        """Where the network and the memory of a rank's container are: in one that is made if it is missing."""
        name = self._name_of_shared(together)
        place = f"container:{name}"
        host = body["HostConfig"]
        shared = (
            {"IpcMode": place}
            if host["NetworkMode"] == HOST
            else {
                "IpcMode": place,
                "NetworkMode": place,
            }
        )
        try:
            if self._client.inspect_container(name)["State"]["Running"]:
                return shared
            self._client.remove_container(name, force=True)
        except NotFound:
            pass
        labels = {LABEL: self._mark, TOGETHER_LABEL: together}
        rank_s = (GATE, *_OPEN_FILES)
        mounts = [one for one in host["Mounts"] if os.path.basename(one["Target"]) not in rank_s]
        made: dict[str, Any] = self._client.create_container_from_config(  # type: ignore[no-untyped-call]
            {
                **body,
                "Entrypoint": ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 2147483647 & wait"],
                "Cmd": [],
                "Env": [],
                "WorkingDir": "/",
                "Labels": labels,
                "HostConfig": {
                    **host,
                    "IpcMode": "shareable",
                    "DeviceRequests": [],
                    "Mounts": mounts,
                },
            },
            name,
        )
        self._client.start(made["Id"])
        return shared

    def _name_of_shared(self, together: str) -> str:
        return f"mind-{hashlib.sha256(f'{self._mark} {together}'.encode()).hexdigest()[:32]}"

    def _make(self, body: Mapping[str, Any], name: str, *, wanted: Container) -> dict[str, Any]:
        if wanted.gpus and self._rules.gpus != NVIDIA and self._is_podman():
            with suppress(NotFound):
                self._client.remove_container(name, force=True)  # of an agent that died just here
            devices = [f"{self._rules.gpus}={gpu}" for gpu in wanted.gpus]
            said = json.dumps(podman.specification(body, name, devices=devices)).encode()
            answer = wire.ask(
                self._rules.engine, "POST", podman.CREATE, timeout_s=TIMEOUT_S, body=said, api=""
            )
            return dict(json.loads(answer))
        made: dict[str, Any] = self._client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
        self._check(made["Id"], wanted)
        return made

    def _is_podman(self) -> bool:
        version: dict[str, Any] = self._client.version()
        return podman.is_podman(version)

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
        if container.together:
            labels[TOGETHER_LABEL] = container.together
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
        mounts = {path: Mount(path, writable) for path, writable in rules.mounts.items()}
        files = [order.path / name for name in (GATE, *_OPEN_FILES)]
        mounts |= {path: Mount(path, writable=True) for path in files}
        mounts |= {mount.target or mount.path: mount for mount in container.mounts}
        config: dict[str, Any] = {
            "Mounts": [
                EngineMount(str(target), str(one.path), type="bind", read_only=not one.writable)
                for target, one in mounts.items()
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

    def _remove(self, name: str) -> bool:
        try:
            with suppress(NotFound):
                labels = self._client.inspect_container(name)["Config"]["Labels"] or {}
                self._sharing[name] = labels.get(TOGETHER_LABEL, "")
                self._client.remove_container(name, v=True, force=True)
            if together := self._sharing.get(name):
                self._remove_shared(together)
        except _FAULTS as error:
            log.warning("container_not_removed", container=name, reason=str(error)[:200])
            return False
        self._sharing.pop(name, None)
        return True

    def _remove_shared(self, together: str) -> None:
        """Removes what containers shared where none of them is left."""
        with self._shared:
            label = f"{TOGETHER_LABEL}={together}"
            left = self._client.containers(all=True, filters={"label": label})
            own = [one for one in left if one["Labels"].get(LABEL) == self._mark]
            if not any(PATH_LABEL in one["Labels"] for one in own):
                for one in own:
                    self._client.remove_container(one["Id"], force=True)

    def _end_strays(self, known: Callable[[], Collection[Path]]) -> bool:
        try:
            found = self._client.containers(all=True, filters={"label": f"{LABEL}={self._mark}"})
        except _FAULTS as error:
            log.warning("containers_not_listed", reason=str(error)[:200])
            return False
        folders = {"", *map(str, known())}
        done = [
            self._remove(one["Id"])
            for one in found
            if one["Labels"].get(PATH_LABEL, "") not in folders
        ]
        for together in {one["Labels"].get(TOGETHER_LABEL, "") for one in found} - {""}:
            try:
                self._remove_shared(together)
            except _FAULTS as error:
                log.warning("containers_not_removed", reason=str(error)[:200])
                done.append(False)
        return all(done)


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
    if kind == NVIDIA:
        return DeviceRequest(driver="nvidia", device_ids=list(gpus), capabilities=[["gpu"]])
    return DeviceRequest(driver="cdi", device_ids=[f"{kind}={gpu}" for gpu in gpus])


def engine_fault(error: Exception) -> Fault:
    """What the user is told of an engine that refused, or that is not there."""
    if isinstance(error, ImageNotFound):
        return Fault(Category.IMAGE, f"resource_config.image: {_said(error)}")
    if isinstance(error, wire.EngineError):
        return Fault(Category.CONFIG, f"the container cannot be made: {error.text}")
    if isinstance(error, APIError) and error.is_client_error():
        return Fault(Category.CONFIG, f"the container cannot be made: {_said(error)}")
    return Fault(Category.NODE_LOST, "the node's container engine does not answer as it should")


def _said(error: APIError) -> str:
    return " ".join(str(error.explanation or error).split())[:300]


def _name(path: Path) -> str:
    return f"mind-{hashlib.sha256(str(path).encode()).hexdigest()[:32]}"
