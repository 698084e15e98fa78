"""Control groups as the kernel shows them, of version 1 and version 2.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import os

ROOT = "/sys/fs/cgroup"


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
            lines = os.pread(self._fd, 4096, 0).split(b"\n")
        except OSError:
            return None
        for line in lines:
            name, _, count = line.partition(b" ")
            if name == b"oom_kill" and count.isdigit():
                return int(count)
        return None
