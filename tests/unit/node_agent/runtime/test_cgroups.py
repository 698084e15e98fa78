"""Control groups of version 2, over files that stand for the kernel's: made, entered, left, read, removed.

Where this machine has a hierarchy of version 2 the ways in and out are tried on it as well; the controllers of
memory, pids and cpu may be those of version 1 there, and then no limit can be.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from node_agent.runtime import cgroups

REMOVE = os.rmdir
ORDER: dict[str, Any] = {
    "path": "/mind/l.1.0",
    "memory_bytes": 5000,
    "cpu_thousandths": 1500,
    "pids": 9,
}
FILES = {
    "cgroup.controllers": "cpuset cpu io memory pids",
    "cgroup.subtree_control": "",
    "cgroup.procs": "",
}
LIMITS = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")


class Kernel:
    """A folder in which a new group gets the files that the group above passes on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._make(root)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        folder = self.root
        for name in Path(path).relative_to(self.root).parts:
            above, folder = folder, folder / name
            if not folder.exists():
                self._make(folder)
                passed = (above / "cgroup.subtree_control").read_text()
                if all(
                    f"+{name}" in passed or name in passed.split() for name in ("memory", "pids")
                ):
                    for name in LIMITS:
                        (folder / name).touch()
                    (folder / "memory.events").write_text("low 0\noom 4\noom_kill 3\n")

    def rmdir(self, path: str) -> None:
        for file in Path(path).iterdir():
            file.unlink()
        REMOVE(path)

    def _make(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name, value in FILES.items():
            (folder / name).write_text(value)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "ROOT", str(kernel.root))
    monkeypatch.setattr("os.makedirs", kernel.makedirs)
    monkeypatch.setattr("os.rmdir", kernel.rmdir)
    monkeypatch.setattr(cgroups, "groups", lambda pid: {"": "/user"})
    kernel.makedirs(f"{kernel.root}/user")
    return kernel


def test_a_rank_has_its_limits_and_its_supervisor_enters_and_leaves(kernel: Kernel) -> None:
    assert not cgroups.is_version_1()
    cgroups.delegate("/mind")
    group = cgroups.RankGroup(ORDER)
    group.make()
    folder = kernel.root / "mind/l.1.0"
    assert {name: (folder / name).read_text() for name in LIMITS} == {
        "memory.max": "5000",
        "memory.swap.max": "0",
        "pids.max": "9",
        "cpu.max": "150000 100000",
    }
    group.enter()
    assert (folder / "cgroup.procs").read_text() == "0"
    assert (kernel.root / "user/cgroup.procs").read_text() == ""
    group.leave()
    assert (kernel.root / "user/cgroup.procs").read_text() == "0"
    assert group.oom_kills() == 3
    group.remove()
    assert not folder.exists()


def test_every_group_above_passes_the_controllers_on(kernel: Kernel) -> None:
    cgroups.delegate("/a.slice/b/ranks")
    for path in ("", "a.slice", "a.slice/b", "a.slice/b/ranks"):
        passed = (kernel.root / path / "cgroup.subtree_control").read_text()
        assert passed == "+memory +pids +cpu"


def test_where_it_was_delegated_the_groups_above_are_left_alone(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.makedirs(f"{kernel.root}/agent/ranks")
    for path in ("", "agent"):
        (kernel.root / path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    written: list[str] = []
    real = cgroups._write

    def write(path: str, value: str) -> None:
        written.append(os.path.relpath(path, kernel.root))
        real(path, value)

    monkeypatch.setattr(cgroups, "_write", write)
    cgroups.delegate("/agent/ranks")
    assert written == ["agent/ranks/cgroup.subtree_control"]


def test_what_was_left_behind_is_swept_and_what_is_in_use_stays(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroups.delegate("/mind")
    for name in ("old", "used"):
        kernel.makedirs(f"{kernel.root}/mind/{name}")

    def rmdir(path: str) -> None:
        if path.endswith("used"):
            raise OSError("Device or resource busy")
        kernel.rmdir(path)

    monkeypatch.setattr("os.rmdir", rmdir)
    cgroups.sweep("/mind")
    assert sorted(path.name for path in (kernel.root / "mind").iterdir() if path.is_dir()) == [
        "used"
    ]


def hierarchies() -> list[str]:
    """Where hierarchies of version 2 are mounted that this process may make groups in."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [one[1] for one in mounts if one[2] == "cgroup2" and os.access(one[1], os.W_OK)]


@pytest.mark.parametrize("root", hierarchies())
def test_a_real_group_is_entered_left_and_removed(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "ROOT", root)
    name = f"/mind-test-{os.getpid()}"
    group = cgroups.RankGroup({**ORDER, "path": name})
    (folder,) = group._limits
    group._limits[folder] = {}  # the controllers may be of version 1 here
    before = cgroups.groups(os.getpid())[""]
    group.make()
    try:
        group.enter()
        assert cgroups.groups(os.getpid())[""].endswith(name)
        group.leave()
        assert cgroups.groups(os.getpid())[""] == before
    finally:
        group.leave()
        group.remove()
    assert not os.path.exists(folder)
