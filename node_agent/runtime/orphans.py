"""Ends what nobody keeps any more: what a lost supervisor left, and ranks that no agent knows.

A process belongs to a rank when it is in the session that the rank began, or when its environment
names the rank's events file; it belongs to a node when its environment carries the node's mark.
Whatever a rank starts carries these, unless it sheds them on purpose. Process ids alone prove
nothing, because they are used again.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

from node_agent.runtime.proc import start_ticks, stat_fields

SWEEP_S = 0.02
NODE_MARK = "MIND_NODE_MARK"
SUPERVISOR = "mind-supervisor"
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
    _end_all(
        lambda process: (
            _in_session(process, pid=pid, start_ticks=start_ticks) or mark in _environ(process)
        )
    )


def node_mark(*names: str) -> str:
    """What the ranks of a node are marked with; `names` tell it from others on this machine."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:32]


def end_strays(mark: str, known: Collection[Path]) -> int:
    """Ends the ranks of a node that are in none of the `known` folders; returns how many there were.

    So it is where the node's state was lost while they ran. Blocks until nothing of them is left.
    """
    node = f"{NODE_MARK}={mark}".encode()
    events = {f"MIND_EVENTS={folder}/events".encode() for folder in known}
    supervisors: dict[int, int] = {}

    def is_stray(process: int) -> bool:
        if supervisors.get(process) == start_ticks(process) != 0:
            return True  # there is more of the rank than carries marks
        environ = _environ(process)
        if node not in environ or not events.isdisjoint(environ):
            return False
        if parent := _supervisor(process):
            supervisors[parent] = start_ticks(parent)
        return True

    _end_all(is_stray, spared=supervisors)
    return len(supervisors)


def _end_all(belongs: Callable[[int], bool], spared: Collection[int] = ()) -> None:
    """Kills whatever belongs, and returns when nothing does; waits for the spared to end by themselves."""
    quiet = 0
    while quiet < QUIET_SWEEPS:
        found = list(filter(belongs, _processes()))
        for process in found:
            if process not in spared:
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


def _environ(process: int) -> list[bytes]:
    try:
        with open(f"/proc/{process}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # gone, or another user's
        return []


def _supervisor(process: int) -> int:
    """The process that supervises a rank's first one; 0 for any other process."""
    fields = stat_fields(process)
    try:
        return int(fields[1]) if fields and _name(int(fields[1])) == SUPERVISOR else 0
    except OSError:
        return 0


def _name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except OSError:
        return  # it has just ended
