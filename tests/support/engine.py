"""A container engine of the tests' own: podman's service, with storage, an image and nothing else.

Needs root and the programs podman, runc, conmon and catatonit; `make test` installs them. The image is
made here, offline: busybox alone. Programs of this machine (Python) are mounted into containers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from types import TracebackType

import docker

from node_agent.runtime import wire
from node_agent.runtime.containers import LABEL
from node_agent.runtime.rules import ContainerRules

IMAGE = "localhost/mind-test:1"
BUSYBOX = "/bin/busybox"
START_S = 120.0
USER = "65534:65534"
_CONF = """
[containers]
default_ulimits=["nofile=20000:20000","nproc=32768:32768"]
[engine]
cgroup_manager="cgroupfs"
events_logger="file"
runtime="runc"
"""
_FOLDERS = ("proc", "sys", "dev", "tmp", "etc", "usr", "lib", "lib64", "root", "run", "work")


class Engine:
    """One engine. Use it as a context manager; `kill` and `start` as a test likes."""

    def __init__(self, registry: str = "") -> None:
        """`registry`: HOST:PORT of one that it reads without encryption."""
        self.folder = Path(tempfile.mkdtemp(prefix="mind-engine-"))
        self.socket = self.folder / "socket"
        (self.folder / "containers.conf").write_text(_CONF)
        insecure = f'[[registry]]\nlocation="{registry}"\ninsecure=true\n' if registry else ""
        (self.folder / "registries.conf").write_text(insecure)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Engine:
        self._podman("import", "-q", "-", IMAGE, given=root_file_system())
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.kill()
        self._podman("rm", "--all", "--force", "--time", "0")
        self._podman("rmi", "--all", "--force")
        left = str(self.folder / "root" / "overlay")
        subprocess.run(["umount", "-l", left], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def rules(self, folder: Path, **more: object) -> ContainerRules:
        """Rules that show containers this machine's Python, and the tests' folder for reading."""
        shown = dict.fromkeys((*programs(), folder), False)
        fields = {"engine": str(self.socket), "user": USER, "network": "none", "mounts": shown}
        return ContainerRules(**{**fields, **more})  # type: ignore[arg-type]

    def settings(self, shown: Iterable[Path], **more: str) -> dict[str, str]:
        """Variables for an agent: what its containers see, in the network of the node."""
        return {
            "MIND_CONTAINER_ENGINE": f"unix://{self.socket}",
            "MIND_CONTAINER_USER": USER,
            "MIND_CONTAINER_NETWORK": "host",
            "MIND_CONTAINER_MOUNTS": json.dumps([str(path) for path in shown]),
            **more,
        }

    def start(self) -> None:
        """Starts the service, and waits until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._words(), "system", "service", "--time=0", f"unix://{self.socket}"],
                env=self._environ(),
                cwd=self.folder,  # where conmon leaves a file of each container whose memory ran out
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        give_up_s = time.monotonic() + START_S
        while True:
            try:
                wire.ask(str(self.socket), "GET", "/_ping", timeout_s=5)
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > give_up_s:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        """Kills the service; containers go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def client(self) -> docker.APIClient:
        """A client of it."""
        return docker.APIClient(f"unix://{self.socket}", version=wire.API[2:], timeout=120)

    def containers(self, mark: str = "") -> list[str]:
        """Names of the jobs' containers that are there, running or not: all, or those of one node."""
        with self.client() as client:
            label = f"{LABEL}={mark}" if mark else LABEL
            found = client.containers(all=True, filters={"label": label})
        return [name.lstrip("/") for one in found for name in one["Names"]]

    def _words(self) -> list[str]:
        folders = ("--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run")
        # an overlay cannot lie on another one, as where this machine is a container itself
        driver = ("--storage-driver", "vfs") if _lies_on_overlay(self.folder) else ()
        return ["podman", *folders, *driver]

    def _environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
        }

    def _podman(self, *words: str, given: bytes = b"") -> None:
        done = subprocess.run(
            [*self._words(), *words],
            env=self._environ(),
            input=given,
            capture_output=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"podman {words[0]}: {done.stderr.decode(errors='replace')}")


def _lies_on_overlay(folder: Path) -> bool:
    words = ["stat", "--file-system", "--format=%T", str(folder)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout == "overlayfs\n"


def programs() -> list[Path]:
    """Folders of this machine in which Python and all that it needs is."""
    wanted = ("/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix)
    found: list[Path] = []
    for path in map(Path, wanted):
        if path.exists() and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def root_file_system(**files: str) -> bytes:
    """A tar of busybox under all its names, and of files in its root."""
    names = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in (*_FOLDERS, "bin"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        tar.add(BUSYBOX, "bin/busybox")
        for name in names.stdout.split():
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for name, text in files.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(text), 0o644
            tar.addfile(file, BytesIO(text.encode()))
    return content.getvalue()
