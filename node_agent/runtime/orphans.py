"""Ends what is left of a rank whose supervisor is gone.

A process belongs to the rank when it is in the session that the rank began, or when its
environment names the rank's events file: whatever a rank starts carries one of these marks, unless
it sheds both on purpose. Process ids alone prove nothing, because they are used again.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from node_agent.runtime.supervisor import stat_fields

SWEEP_S = 0.02
QUIET_SWEEPS = 3  # a process is without its marks for a moment while it executes a new program


def boot_mark() -> str:
    """Names this boot and process namespace; a process id of another one means nothing here."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"


def end(folder: Path, *, pid: int, start_ticks: int) -> None:
    """Kills all that belongs to the rank of `folder`, and returns when nothing of it is left.

    Blocks; `pid` and `start_ticks` are those of the rank's first process in this boot, 0 for
    not known.
    """
    mark = f"MIND_EVENTS={folder}/events".encode()
    quiet = 0
    while quiet < QUIET_SWEEPS:
        found = [
            process
            for process in _processes()
            if _in_session(process, pid=pid, start_ticks=start_ticks) or _carries(process, mark)
        ]
        for process in found:
            _kill(process)
        quiet = 0 if found else quiet + 1
        time.sleep(SWEEP_S)


def _processes() -> list[int]:
    own = os.getpid()
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]


def _in_session(process: int, *, pid: int, start_ticks: int) -> bool:
    fields = stat_fields(process)
    if not pid or not start_ticks or not fields or fields[0] == "Z":
        return False
    if int(fields[3]) != pid:
        return False
    leader = stat_fields(pid)
    return not leader or int(leader[19]) == start_ticks


def _carries(process: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{process}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:  # gone, or another user's
        return False


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except OSError:
        return  # it has just ended
