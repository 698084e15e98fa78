"""Sizes at which a function, a file or a class is too large to be read at once; and that all say why."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.sources import BESIDE, PACKAGES, Function, length, sources

CORE = "coordinator/core"
OURS = (*PACKAGES, *BESIDE)
FOREIGN = {"settings_customise_sources", "common"}  # called by pydantic, by typer
ASGI = {"scope", "receive", "send"}  # the order in which every ASGI server calls


def test_functions_are_at_most_70_lines() -> None:
    found = [
        f"{source.name}:{node.lineno} {node.name}: {length(node)}"
        for source in sources(*OURS)
        for node in source.functions()
        if length(node) > 70
    ]
    assert not found


def test_functions_of_tests_are_at_most_100_lines() -> None:
    found = [
        f"{source.name}:{node.lineno} {node.name}: {length(node)}"
        for source in sources("tests")
        for node in source.functions()
        if length(node) > 100
    ]
    assert not found


def test_files_are_at_most_600_lines() -> None:
    found = [f"{s.name}: {s.lines}" for s in sources(*OURS, "tests") if s.lines > 600]
    assert not found


def test_classes_have_at_most_15_methods() -> None:
    found = [
        f"{source.name}:{node.lineno} {node.name}: {count}"
        for source in sources(*OURS)
        for node in source.classes()
        if (count := sum(_is_method(item) for item in node.body)) > 15
    ]
    assert not found


def test_every_module_says_what_it_is_for() -> None:
    found = [
        source.name
        for source in sources(*OURS, "tests")
        if source.text.strip() and not ast.get_docstring(source.tree)
    ]
    assert not found


@pytest.mark.parametrize(("folder", "most"), [*((name, 3) for name in PACKAGES), (CORE, 2)])
def test_only_the_first_parameters_are_passed_by_position(folder: str, most: int) -> None:
    found = [
        f"{source.name}:{node.lineno} {node.name}"
        for source in sources(folder)
        for node in source.functions()
        if len(_positional(node)) > most
    ]
    assert not found


def _is_method(node: ast.stmt) -> bool:
    """Whether it counts: a method that is public or does work, not a property or an overload."""
    if not isinstance(node, Function):
        return False
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    return not decorators & {"property", "overload", "override"} and not node.name.startswith("_")


def _positional(node: Function) -> list[str]:
    """Names that may be passed by position; what someone else's interface calls does not count."""
    names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
    if names and names[0] in ("self", "cls"):
        names = names[1:]
    dunder = node.name.startswith("__") and node.name != "__init__"
    verb = any("Annotated[" in ast.unparse(arg) for arg in node.args.args)
    foreign = dunder or verb or node.name in FOREIGN or ASGI & set(names)
    return [] if foreign else names
