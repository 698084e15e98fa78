"""Containers with CDI devices on podman, whose Docker-compatible API drops requests for devices.

Its own API, on the same socket, knows them. What `Containers` asks of Docker is said here in its words;
the container is then the same, and is started and removed as any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

CREATE = "/v4.0.0/libpod/containers/create"
NAME = "Podman Engine"
_NETWORKS = ("host", "none", "bridge")


def is_podman(version: Mapping[str, Any]) -> bool:
    """Whether an engine that says this of itself is podman."""
    return any(part.get("Name") == NAME for part in version.get("Components") or ())


def specification(
    body: Mapping[str, Any], name: str, *, devices: Collection[str]
) -> dict[str, Any]:
    """A container in the words of podman, from those of Docker; devices as KIND=NAME."""
    host = body["HostConfig"]
    network = host["NetworkMode"]
    wanted: dict[str, Any] = {
        "name": name,
        "image": body["Image"],
        "entrypoint": body["Entrypoint"],
        "command": body["Cmd"],
        "env": dict(pair.split("=", 1) for pair in body["Env"]),
        "user": body["User"],
        "work_dir": body["WorkingDir"],
        "labels": body["Labels"],
        "mounts": [*map(_mount, host["Mounts"]), *map(_tmpfs, host["Tmpfs"].items())],
        "ipcns": {"nsmode": "private"},
        "init": True,
        "read_only_filesystem": True,
        "cap_drop": ["ALL"],
        "no_new_privileges": True,
        "oom_score_adj": host["OomScoreAdj"],
        "resource_limits": _limits(host),
        "devices": [{"path": device} for device in devices],
    }
    if network in _NETWORKS:
        wanted["netns"] = {"nsmode": network}
    else:
        wanted |= {"netns": {"nsmode": "bridge"}, "Networks": {network: {}}}
    if "ShmSize" in host:
        wanted["shm_size"] = host["ShmSize"]
    return wanted


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    options = ["rbind", "ro" if mount["ReadOnly"] else "rw"]
    place = {"source": mount["Source"], "destination": mount["Target"]}
    return {"type": "bind", **place, "options": options}


def _tmpfs(given: tuple[str, str]) -> dict[str, Any]:
    path, options = given
    return {
        "type": "tmpfs",
        "source": "tmpfs",
        "destination": path,
        "options": options.split(","),
    }


def _limits(host: Mapping[str, Any]) -> dict[str, Any]:
    limits: dict[str, Any] = {"pids": {"limit": host["PidsLimit"]}}
    if "Memory" in host:
        limits["memory"] = {"limit": host["Memory"], "swap": host["MemorySwap"]}
    if "NanoCpus" in host:
        limits["cpu"] = {"period": 100_000, "quota": host["NanoCpus"] // 10_000}
    return limits
