"""A rank's folder as its supervisor writes it.

Only light modules of the standard library are imported here: every supervisor carries them.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import Any

CONTROL = "control"
STARTED = "started.json"
EXIT = "exit.json"

RETRY_S = 1.0  # between tries to write the exit down on a full disk
STDERR_TAIL_BYTES = 8192
LINES = 10
LINE_CHARACTERS = 300
LINES_BYTES = 7000  # of all of them, as they stand in exit.json
RESERVE_BYTES = 8192  # size of started.json and exit.json, padded with spaces


class RankFolder:
    """Files of one rank, named relative to a descriptor: renaming the folder does no harm."""

    def __init__(self, path: str) -> None:
        """Opens the folder, which exists."""
        self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def claim(self) -> int:
        """Makes this process the folder's only supervisor for ever; returns its control FIFO.

        Raises:
            FileExistsError: there is, or was, another one.
        """
        draft = f"{CONTROL}.{os.getpid()}"
        os.mkfifo(draft, 0o600, dir_fd=self._folder)
        control = os.open(draft, os.O_RDWR | os.O_NONBLOCK, dir_fd=self._folder)
        try:
            os.link(draft, CONTROL, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        finally:
            os.unlink(draft, dir_fd=self._folder)
        return control

    def reserve(self) -> None:
        """Takes the room for started.json and exit.json while there is some."""
        for name in (STARTED, EXIT):
            self._fill(name, b"")

    def open_to_append(self, name: str) -> int:
        """Opens an output file, made where it is missing."""
        return self._open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def give(self, name: str, owner: list[int]) -> None:
        """Makes a file another user's and group's, and makes it where it is missing."""
        fd = self.open_to_append(name)
        try:
            os.fchown(fd, *owner)
        finally:
            os.close(fd)

    def open_fifo(self, name: str) -> int:
        """Opens a FIFO that exists, both ways, so that neither end waits for the other."""
        return self._open(name, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)

    def write_started(self, started: dict[str, Any]) -> None:
        """Publishes started.json, if the disk takes it; the rank runs either way."""
        with suppress(OSError):
            self._publish(STARTED, started)

    def write_exit(self, ended: dict[str, Any]) -> None:
        """Publishes exit.json, however long the disk is full; returns as well where nobody asks."""
        while True:
            try:
                self._publish(EXIT, ended)
            except FileNotFoundError:
                return  # the folder was removed
            except OSError:
                time.sleep(RETRY_S)
            else:
                return

    def sync_exit(self) -> None:
        """Makes exit.json durable."""
        with suppress(OSError):  # removed already, or a disk that fails; it was told either way
            os.fsync(self._open(EXIT, os.O_RDONLY))

    def last_lines(self) -> list[str]:
        """The last lines of stderr, oldest first, as far as they are still there; for messages."""
        try:
            fd = self._open("stderr", os.O_RDONLY)
            size = os.fstat(fd).st_size
            tail = os.pread(fd, STDERR_TAIL_BYTES, max(0, size - STDERR_TAIL_BYTES))
            os.close(fd)
        except OSError:
            return []
        lines: list[str] = []
        room_bytes = LINES_BYTES
        for line in reversed(tail.replace(b"\0", b"").decode("utf-8", "replace").splitlines()):
            text = line.rstrip()[:LINE_CHARACTERS]
            room_bytes -= len(json.dumps(text)) + 2
            if room_bytes < 0 or len(lines) == LINES:
                break
            if text:
                lines.append(text)
        return lines[::-1]

    def _publish(self, name: str, content: dict[str, Any]) -> None:
        self._fill(name, json.dumps(content).encode())
        os.rename(f"{name}.tmp", name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _fill(self, name: str, content: bytes) -> None:
        """Fills the draft of a file, always to the same size: reserved, it fits a full disk."""
        fd = self._open(f"{name}.tmp", os.O_WRONLY | os.O_CREAT)
        try:
            os.write(fd, content.ljust(RESERVE_BYTES))
        finally:
            os.close(fd)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags, 0o600, dir_fd=self._folder)
