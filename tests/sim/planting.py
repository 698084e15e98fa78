"""Changes lines of modules while they are imported."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import NamedTuple


class Edit(NamedTuple):
    """One changed line."""

    module: str
    old: str
    new: str


class Planter(MetaPathFinder):
    """Finds the modules to change, and changes them."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edits

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        mine = [e for e in self._edits if fullname == e.module]
        spec = PathFinder.find_spec(fullname, path) if mine else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Changed(fullname, spec.origin, mine)
        return spec


class _Changed(SourceFileLoader):
    """Loads a module with some lines changed."""

    def __init__(self, fullname: str, path: str, edits: Sequence[Edit]) -> None:
        super().__init__(fullname, path)
        self._edits = edits

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        text = self.get_data(self.path).decode()
        for edit in self._edits:
            if text.count(edit.old) != 1:
                raise LookupError(f"{edit.module}: not found once: {edit.old}")
            text = text.replace(edit.old, edit.new)
        return compile(text, self.path, "exec", dont_inherit=True)
