"""Processes of a cluster, found by what they are: by their command line, environment or folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.waiting import LOOK_S

ENDS_S = 30.0


def of_folder(folder: Path) -> list[psutil.Process]:
    """Every living process that names a folder in its command line, environment or working directory."""
    found = []
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _names(process, str(folder)):
            found.append(process)
    return found


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that has ended meanwhile."""
    return _command(process).split()


def left_of(folder: Path) -> list[psutil.Process]:
    """Those that stay: a supervisor that sees its last file to the disk ends by itself."""
    deadline = time.monotonic() + ENDS_S
    while (left := of_folder(folder)) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return left


def is_alive(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_all(processes: list[psutil.Process]) -> None:
    """Kills these processes, and waits until they are gone."""
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=60)


def describe(found: list[psutil.Process]) -> str:
    """For messages: pid and command line of each."""
    return "; ".join(f"{one.pid}: {_command(one)}" for one in found)


def _names(process: psutil.Process, text: str) -> bool:
    if not is_alive(process.pid):
        return False
    return (
        text in _command(process)
        or text in _read(lambda: process.cwd())
        or text in _read(lambda: "\0".join(process.environ().values()))
    )


def _command(process: psutil.Process) -> str:
    return _read(lambda: " ".join(process.cmdline()))


def _read(question: Callable[[], str]) -> str:
    try:
        return question()
    except (psutil.Error, OSError):
        return ""
