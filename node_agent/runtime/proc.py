"""Processes of this machine as /proc shows them; the clock; signals to several.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import os
import time


def descendants(root: int) -> list[int]:
    """Every living descendant of the process `root`, parents before children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat_fields(int(name))) and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    found = [root]
    for parent in found:  # grows while it is walked
        found.extend(children.get(parent, ()))
    return found[1:]


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third (state) on; empty where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since the boot; 0 where there is no such process."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler: a signal without one would end it."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"SigCgt:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except OSError:
        pass
    return False


def signal_all(pids: list[int], number: int) -> None:
    """Sends a signal to each that is still there and may be sent one."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue  # it has just ended, or has become another user's


def now_at_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
