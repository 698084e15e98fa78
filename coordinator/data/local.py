"""Reads files of this machine, below the folders that the administrator allows and nowhere else.

A path is resolved before it is judged and its file is judged once more when it is open, so that a link
that is swapped in between gains nothing. What is not allowed and what lies outside look the same.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from coordinator.data.reading import Budget, Reading
from coordinator.data.terms import Rules, Unreachable
from scaimind.service.reach.stores import NOT_BELOW, roots_for

SAYS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EACCES: "it may not be read",
    errno.EPERM: "it may not be read",
}
SYSTEM = ("/proc", "/sys", "/dev")  # their files are not data, and some never end
_OPENED = Path("/proc/self/fd")


class Folders:
    """Where a tenant may read on this machine."""

    def __init__(self, rules: Rules, tenant_id: str) -> None:
        roots = [root for root in roots_for(rules.roots, tenant_id) if root.startswith("/")]
        self._open = {Path(os.path.realpath(root)): True for root in roots}
        shut = {Path(os.path.realpath(one)): False for one in (*rules.closed, *SYSTEM)}
        self._rules = {**shut, **self._open}

    def resolve(self, path: str) -> Path:
        """The true path of what a caller names. Raises Unreachable where it is not allowed."""
        if "\0" in path or not path.startswith("/"):
            raise Unreachable("a path of this machine must be absolute")
        try:
            true = Path(os.path.realpath(path))
        except OSError:
            raise Unreachable(NOT_BELOW) from None
        self._judge(true)
        return true

    def open(self, path: Path, budget: Budget) -> Reading:
        """Opens a file whose path was resolved. Raises Unreachable."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except (OSError, ValueError) as error:
            raise Unreachable(says(error)) from None
        file = io.FileIO(handle)
        try:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise Unreachable("it is not a file")
            if _OPENED.exists():
                self._judge(Path(os.readlink(_OPENED / str(handle))))
        except BaseException:
            file.close()
            raise
        return Reading(file, budget, size_bytes=facts.st_size)

    def files(self, folder: Path, most: int) -> Iterator[Path]:
        """Files below a folder that are not hidden, by name; links to elsewhere are left out.

        Raises:
            Unreachable: there are more than `most`.
        """
        count = 0
        for root, names, files in os.walk(folder):
            names[:] = sorted(name for name in names if not name.startswith("."))
            for name in sorted(files):
                path = Path(root, name)
                if name.startswith(".") or path.is_symlink():
                    continue
                count += 1
                if count > most:
                    raise Unreachable(f"the folder holds more than {most} files")
                yield path

    def _judge(self, true: Path) -> None:
        decides = next((one for one in (true, *true.parents) if one in self._rules), None)
        if decides is None or not self._rules[decides]:
            raise Unreachable(NOT_BELOW)


def says(error: Exception) -> str:
    """What a caller is told of an error of the system."""
    number = error.errno if isinstance(error, OSError) else None
    return SAYS.get(number or 0, "it cannot be read")
