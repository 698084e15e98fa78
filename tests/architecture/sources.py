"""Every source file of ours, parsed once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("scaimind", "coordinator", "gateway", "node_agent")
BESIDE = ("tools", "bench", "examples")
GENERATED = ("_pb2.py", "_pb2_grpc.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """One file; `name` is its path from the root."""

    name: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    def functions(self) -> Iterator[Function]:
        """Every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def classes(self) -> Iterator[ast.ClassDef]:
        """Every class."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef):
                yield node


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """The files below some folders of the root, without generated ones, by name."""
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.name.endswith(GENERATED):
                text = path.read_text(encoding="utf-8")
                name = str(path.relative_to(ROOT))
                found.append(Source(name, text, ast.parse(text, filename=name)))
    return tuple(found)


def length(node: Function) -> int:
    """Lines of a function, its decorators left out."""
    return (node.end_lineno or node.lineno) - node.lineno + 1
