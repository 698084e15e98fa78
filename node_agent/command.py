"""What a rank executes: the user's script or program, checked before anything is started.

`custom_script_path` is a local path or a `file://` URI. A relative path starts at the agent's own
working directory. A Python script (by its suffix, or text without an execute bit) runs with the
agent's Python, or the one that its admin names, unbuffered; so does `module://NAME`, a module that is
installed with it. Anything else must be executable.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from pathlib import Path
from urllib.parse import unquote

from node_agent.core.leases import Category, Fault
from scaimind.v1 import job_pb2

SCRIPT = "training_config.framework.custom_script_path"
ARGS = 'training_config.framework.config["args"]'
MODULE = "module://"
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_HEAD_BYTES = 4096


class Refused(Exception):
    """The lease cannot be started as it is; `fault` says why, and names the field."""

    def __init__(self, fault: Fault) -> None:
        """Carries the fault that the lease is reported with."""
        super().__init__(fault.message)
        self.fault = fault


def refuse(field: str, message: str) -> Refused:
    """The refusal of a field that the user gave."""
    return Refused(Fault(Category.CONFIG, f"{field}: {message}"))


def command(
    framework: job_pb2.Framework,
    *,
    python: str = sys.executable,
    script: Path | None = None,
) -> tuple[str, ...]:
    """The program and its arguments, the program as an absolute path; `python` runs scripts.

    `script` is where the script lies that was brought here for the job.

    Raises:
        Refused: the framework has no script, the script cannot be run, or `args` has open quotes.
    """
    if not framework.custom_script_path:
        name = job_pb2.Framework.Type.Name(framework.type)
        raise refuse(SCRIPT, f"framework {name} needs a script on this node, and none is given")
    return (
        *(_program(script, python) if script else _what(framework.custom_script_path, python)),
        *arguments(framework.config.get("args", "")),
    )


def _what(given: str, python: str) -> tuple[str, ...]:
    if not given.startswith(MODULE):
        return _program(local_path(SCRIPT, given), python)
    return (python, "-u", "-m", module_name(given))


def module_name(given: str) -> str:
    """The module of a `module://` path; Refused where it cannot be one."""
    name = given.removeprefix(MODULE)
    if not _MODULE.fullmatch(name):
        raise refuse(SCRIPT, "after module:// comes the name of a Python module")
    return name


def local_path(field: str, value: str) -> Path:
    """The absolute local path of a path or a `file://` URI.

    Raises:
        Refused: another scheme, another machine, or a NUL in it.
    """
    scheme, is_uri, rest = value.partition("://")
    path = value
    if is_uri:
        machine, _, path = rest.partition("/")
        path = "/" + unquote(path)
        if scheme.lower() != "file":
            raise refuse(field, f"this node cannot fetch {scheme}:// (local paths and file://)")
        if machine not in ("", "localhost"):
            raise refuse(field, "a file:// URI must name a file of this machine: file:///path")
    if "\0" in path:
        raise refuse(field, "a path cannot hold a NUL character")
    return Path(os.path.abspath(path))


def _program(script: Path, python: str) -> tuple[str, ...]:
    try:
        mode = script.stat().st_mode
    except OSError as error:
        raise refuse(SCRIPT, f"{error.strerror} on this node: {script}") from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a file"
        raise refuse(SCRIPT, f"{script} is {kind}")
    if script.suffix == ".py":
        _head(script)
        return (python, "-u", str(script))
    if os.access(script, os.X_OK):
        return (str(script),)
    if _looks_like_python(_head(script)):
        return (python, "-u", str(script))
    raise refuse(SCRIPT, f"{script} is neither a Python script nor executable (chmod +x)")


def _head(script: Path) -> bytes:
    try:
        with script.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise refuse(SCRIPT, f"cannot be read: {error.strerror}: {script}") from None


def _looks_like_python(head: bytes) -> bool:
    if b"\0" in head:
        return False
    return not head.startswith(b"#!") or b"python" in head.split(b"\n", 1)[0]


def arguments(text: str) -> list[str]:
    """The words of `args`; Refused where it has open quotes."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise refuse(ARGS, f"cannot be split as a shell does: {error}") from None
    if any("\0" in word for word in words):
        raise refuse(ARGS, "an argument cannot hold a NUL character")
    return words
