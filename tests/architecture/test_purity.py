"""The cores cannot reach the world: no clock, no I/O, no randomness, one hand that writes."""

from __future__ import annotations

import ast
import subprocess
import sys

from tests.architecture.sources import ROOT, Source, sources

CORES = ("coordinator/core", "node_agent/core")
PURE = {
    "__future__",
    "bisect",
    "collections",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "typing",
}
WORLDLY_CALLS = {"now", "today", "utcnow", "time", "monotonic", "print", "open", "input", "sleep"}
INDEXES = {"state", "capacity", "queue", "deadlines"}  # modules of the state itself
LINT = "from importlinter.cli import lint_imports_command as lint; lint()"
CHANGING = {
    "add",
    "append",
    "clear",
    "grow",
    "insert",
    "pop",
    "popitem",
    "put",
    "remove",
    "set",
    "setdefault",
    "update",
}
FORBIDDEN_WORDS = {"task", "worker", "host", "allocation", "reservation", "execution", "evict"}


def test_the_cores_import_only_what_is_pure() -> None:
    found = []
    for source in sources(*CORES):
        own = source.name.split("/", 1)[0]
        for node in ast.walk(source.tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                if name.split(".")[0] not in PURE and not name.startswith(f"{own}.core"):
                    found.append(f"{source.name}: {name}")
    assert not found


def test_the_cores_neither_wait_nor_look_at_a_clock() -> None:
    found = []
    for source in sources(*CORES):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                found.append(f"{source.name}:{node.lineno} waits")
            if isinstance(node, ast.Call) and _called(node) in WORLDLY_CALLS:
                found.append(f"{source.name}:{node.lineno} calls {_called(node)}")
    assert not found


def test_the_cores_do_not_iterate_over_sets() -> None:
    found = [
        f"{source.name}:{node.iter.lineno}"
        for source in sources(*CORES)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.For | ast.comprehension)
        and isinstance(node.iter, ast.Set | ast.SetComp)
    ]
    assert not found


def test_only_apply_changes_the_state() -> None:
    found = []
    for source in sources("coordinator/core"):
        if _module(source) in INDEXES:
            continue
        for node in ast.walk(source.tree):
            found += [f"{source.name}:{line}" for line in _changes(node, _module(source))]
    assert not found


def test_words_of_other_systems_stay_out_of_the_cores() -> None:
    found = [
        f"{source.name}:{node.lineno} {node.name}"
        for source in sources(*CORES)
        for node in (*source.functions(), *source.classes())
        if _words(node.name) & FORBIDDEN_WORDS
    ]
    assert not found


def test_rooms_import_only_what_lies_below_them() -> None:
    linted = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


def _module(source: Source) -> str:
    return source.name.rsplit("/", 1)[1].removesuffix(".py")


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _changes(node: ast.AST, module: str) -> list[int]:
    """Lines of a node that change something reached through a `state`."""
    if isinstance(node, ast.Assign | ast.Delete):
        return [target.lineno for target in node.targets if _inside_state(target)]
    if isinstance(node, ast.AugAssign):
        return [node.lineno] if _inside_state(node.target) else []
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return []
    if not _reaches_state(node.func.value):
        return []
    allowed = {"apply": {"turn", "core"}, "set_aside": {"schedule"}}
    name = node.func.attr
    if name in CHANGING or (name in allowed and module not in allowed[name]):
        return [node.lineno]
    return []


def _inside_state(target: ast.AST) -> bool:
    """Whether a target lies within a state; `self.state = …` itself makes one."""
    return isinstance(target, ast.Attribute | ast.Subscript) and _reaches_state(target.value)


def _reaches_state(node: ast.AST) -> bool:
    return any(
        (isinstance(part, ast.Name) and part.id == "state")
        or (isinstance(part, ast.Attribute) and part.attr == "state")
        for part in ast.walk(node)
    )


def _words(name: str) -> set[str]:
    spaced = "".join(f"_{letter}" if letter.isupper() else letter for letter in name)
    return {word.rstrip("s") for word in spaced.lower().split("_")}
