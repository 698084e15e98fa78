"""Control groups as the kernel shows them, of version 1 and version 2.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

ROOT = "/sys/fs/cgroup"
SWAP = "memory.memsw.limit_in_bytes"  # together with memory
CPU_PERIOD_US = 100_000
CONTROLLERS_2 = ("memory", "pids", "cpu")


def groups(pid: int) -> dict[str, str]:
    """The groups of a process: path by controller, that of version 2 under "". Empty for none."""
    found = {}
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            for line in file:
                _, controllers, path = line.rstrip("\n").split(":", 2)
                found.update(dict.fromkeys(controllers.split(","), path))
    except OSError:
        return {}
    return found


class OomCount:
    """How often the kernel ended a process of a group because memory ran out."""

    def __init__(self, pid: int) -> None:
        """Looks at the group that the process is in now."""
        found = groups(pid)
        if "memory" in found:
            path = f"{ROOT}/memory{found['memory']}/memory.oom_control"
        else:
            path = f"{ROOT}{found.get('', '')}/memory.events"
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # not to be told: no memory controller, or another's view of the groups

    def read(self) -> int | None:
        """The count; None where it cannot be told, as when the group is gone."""
        try:
            return _oom_kills(os.pread(self._fd, 4096, 0))
        except OSError:
            return None


def count_of(path: str) -> int:
    """The count that a file of a group tells. OSError where there is no such file."""
    with open(path, "rb") as file:
        return _oom_kills(file.read(4096))


def _oom_kills(content: bytes) -> int:
    for line in content.split(b"\n"):
        name, _, count = line.partition(b" ")
        if name == b"oom_kill" and count.isdigit():
            return int(count)
    return 0


class RankGroup:
    """The group of one rank: its limits, and the proof that its memory ran out.

    A supervisor enters it, starts the rank, which is then in it from its first instruction on, and
    leaves. Of version 1 each controller has a tree of its own.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        """Takes of an order: path (below the root of the groups), memory_bytes, cpu_thousandths, pids.

        An amount of 0 is no limit.
        """
        limits = _limits_1(order) if is_version_1() else {"": _limits_2(order)}
        self._limits = {
            f"{ROOT}/{controller}{order['path']}": values for controller, values in limits.items()
        }
        self._before: dict[str, str] = {}

    def make(self) -> None:
        """Makes it with its limits. OSError where that is not allowed, or not possible here."""
        for folder, values in self._limits.items():
            os.makedirs(folder, exist_ok=True)
            for name, value in values.items():
                if name != SWAP or os.path.exists(f"{folder}/{name}"):  # kernels may not count swap
                    _write(f"{folder}/{name}", value)

    def enter(self) -> None:
        """Takes this process in."""
        own = groups(os.getpid())
        for folder in self._limits:
            controller = folder.removeprefix(ROOT).split("/")[1] if is_version_1() else ""
            self._before[folder] = f"{ROOT}/{controller}{own.get(controller, '/')}"
            _write(f"{folder}/cgroup.procs", "0")

    def leave(self) -> None:
        """Takes this process back to where it was."""
        for before in self._before.values():
            _write(f"{before}/cgroup.procs", "0")

    def oom_kills(self) -> int:
        """How many of its processes the kernel ended because memory ran out."""
        for folder in self._limits:
            for name in ("memory.events", "memory.oom_control"):
                with suppress(OSError):
                    return count_of(f"{folder}/{name}")
        return 0

    def remove(self) -> None:
        """Removes it; its processes are gone. One that stays is removed with the next start."""
        for folder in self._limits:
            with suppress(OSError):
                os.rmdir(folder)


def is_version_1() -> bool:
    """Whether the controllers are those of version 1."""
    return not os.path.exists(f"{ROOT}/cgroup.controllers")


def delegate(parent: str) -> None:
    """Makes the group below which ranks get theirs. OSError where that is not allowed.

    Of version 2 each group above has to pass the controllers on. One that does already is left alone: where
    the group was delegated to this user, those above are another's.
    """
    if is_version_1():
        for controller in ("memory", "pids", "cpu"):
            os.makedirs(f"{ROOT}/{controller}{parent}", exist_ok=True)
        return
    os.makedirs(f"{ROOT}{parent}", exist_ok=True)
    folder = ROOT
    for name in ("", *parent.strip("/").split("/")):
        folder = f"{folder}/{name}".rstrip("/")
        with open(f"{folder}/cgroup.subtree_control") as file:
            passed_on = file.read().split()
        missing = [f"+{one}" for one in CONTROLLERS_2 if one not in passed_on]
        if missing:
            _write(f"{folder}/cgroup.subtree_control", " ".join(missing))


def sweep(parent: str) -> None:
    """Removes what supervisors that were killed left below a group; what is in use stays."""
    for controller in ("memory", "pids", "cpu") if is_version_1() else ("",):
        folder = f"{ROOT}/{controller}{parent}"
        with suppress(OSError):
            for name in os.listdir(folder):
                with suppress(OSError):
                    os.rmdir(f"{folder}/{name}")


def _limits_1(order: dict[str, Any]) -> dict[str, dict[str, str]]:
    memory = order["memory_bytes"]
    limits = {"pids": {"pids.max": str(order["pids"] or "max")}}
    limits["memory"] = {"memory.limit_in_bytes": str(memory), SWAP: str(memory)} if memory else {}
    if order["cpu_thousandths"]:
        quota = str(order["cpu_thousandths"] * CPU_PERIOD_US // 1000)
        limits["cpu"] = {"cpu.cfs_period_us": str(CPU_PERIOD_US), "cpu.cfs_quota_us": quota}
    return limits


def _limits_2(order: dict[str, Any]) -> dict[str, str]:
    limits = {"pids.max": str(order["pids"] or "max")}
    if order["memory_bytes"]:
        limits |= {"memory.max": str(order["memory_bytes"]), "memory.swap.max": "0"}
    if order["cpu_thousandths"]:
        quota = order["cpu_thousandths"] * CPU_PERIOD_US // 1000
        limits["cpu.max"] = f"{quota} {CPU_PERIOD_US}"
    return limits


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
