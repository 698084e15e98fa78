"""Job files: the submit body in YAML or JSON; a file may hold several, as YAML documents.

Two things are settled on the machine that submits, because an agent needs absolute paths: a
relative script or data path that exists beside the job file, and the placeholders `${JOB_DIR}`
(the job file's folder) and `${PYTHON_STDLIB}` (Python's own source) in such paths.
"""

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaimind.cli.exits import fail
from scaimind.cli.lines import Lines, documents, line_of, steps

MAX_BYTES = 16 * 1024 * 1024
SHAPE = "a job file holds an object with name, training_config, data_config, …"


@dataclass(frozen=True, slots=True)
class JobFile:
    """One job of a file."""

    name: str
    """Of the file; `-` is standard input."""
    body: dict[str, Any]
    line: int
    """Where it begins in the file, from 1."""
    lines: Lines
    """Of its fields; 0 for those that --set gave."""

    def place(self, field: str) -> str:
        """Where a field stands: `job.yaml:12`."""
        path = steps(field)
        line = line_of(self.lines, path)
        given = any(self.lines.get(path[:length]) == 0 for length in range(1, len(path) + 1))
        return "--set" if given else f"{self.name}:{line or self.line}"


def read(file: str, sets: list[str], *, shape: str = SHAPE) -> dict[str, Any]:
    """The one body in `file` (`-` is standard input) with `sets` (`key.path=value`) applied.

    `shape` says what such a file holds, where it holds something else.

    Raises:
        Fault: it cannot be read, is not YAML, or is not one object.
    """
    found = read_all([file], sets, shape=shape)
    if len(found) > 1:
        fail(f"{file}: holds {len(found)} jobs")
    return found[0].body


def read_all(files: list[str], sets: list[str], *, shape: str = SHAPE) -> list[JobFile]:
    """All jobs of all files, in order, at least one, with `sets` applied to each.

    Raises:
        Fault: a file cannot be read, is not YAML, or holds something else than objects.
    """
    found = []
    for file in files:
        folder = Path.cwd() if file == "-" else Path(file).absolute().parent
        for job in parse(_text(file), file, shape=shape):
            for each in sets:
                assign(job.body, each)
                job.lines[steps(each.partition("=")[0])] = 0
            settle_paths(job.body, folder)
            found.append(job)
    return found


def _text(file: str) -> str:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            fail(f"{file}: larger than {MAX_BYTES // 1024 // 1024} MiB")
        return data.decode("utf-8")
    except OSError as error:
        fail(f"{file}: {error.strerror}", hint="give a file, or - for standard input")
    except UnicodeDecodeError:
        fail(f"{file}: not UTF-8 text")


def parse(text: str, name: str, *, shape: str = SHAPE) -> list[JobFile]:
    """The objects in YAML, of which JSON is a part; at least one."""
    found = [each for each in documents(text, name) if each.value is not None]
    for value, line, _ in found:
        if not isinstance(value, dict):
            fail(f"{name}:{line}: {shape}")
    if not found:
        fail(f"{name}: {shape}")
    return [JobFile(name, *each) for each in found]


def assign(body: dict[str, Any], assignment: str) -> None:
    """Sets one field, such as `resource_config.gpu_count=2`; the value is YAML."""
    import yaml

    path, separator, text = assignment.partition("=")
    if not separator or not path:
        fail(f"--set {assignment}: must be key.path=value")
    *parents, last = path.split(".")
    place = body
    for name in parents:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            fail(f"--set {assignment}: {name} is not an object")
        place = inner
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        place[last] = text


def settle_paths(body: dict[str, Any], folder: Path) -> None:
    """Makes the script's and the data's paths absolute where they are meant to be local."""
    framework = _inner(_inner(body, "training_config"), "framework")
    if not framework.get("source_uri"):  # else it is a path in there
        _settle(framework, "custom_script_path", folder)
    _settle(framework, "source_uri", folder)
    for several, name in (("sources", "path"), ("storage_mounts", "source_uri")):
        found = _inner(body, "data_config").get(several)
        for one in found if isinstance(found, list) else ():
            if isinstance(one, dict):
                _settle(one, name, folder)


def _inner(body: dict[str, Any], name: str) -> dict[str, Any]:
    inner = body.get(name)
    return inner if isinstance(inner, dict) else {}


def _settle(place: dict[str, Any], name: str, folder: Path) -> None:
    path = place.get(name)
    if not isinstance(path, str) or not path:
        return
    path = path.replace("${JOB_DIR}", str(folder))
    path = path.replace("${PYTHON_STDLIB}", sysconfig.get_path("stdlib"))
    if "://" not in path and "\0" not in path and (folder / path).exists():
        path = str((folder / path).absolute())
    place[name] = path
