"""YAML with the line of every field, so that a fault can be shown where it stands."""

import re
from typing import Any, NamedTuple

from scaimind.cli.exits import fail

Path = tuple[str | int, ...]
Lines = dict[Path, int]

DEPTH_MAX = 32
LINES_MAX = 200_000
_STEP = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\[\]]+)')


class Document(NamedTuple):
    """One document: its value, where it begins, and the lines of what is in it, from 1."""

    value: Any
    line: int
    lines: Lines


def documents(text: str, name: str) -> list[Document]:
    """All documents of a text, of which JSON is one.

    Raises:
        Fault: it is not YAML, or a field is given twice.
    """
    import yaml

    loader = yaml.SafeLoader(text)
    found = []
    try:
        while loader.check_node():
            node: Any = loader.get_node()
            lines: Lines = {}
            _walk(node, (), lines=lines, name=name)
            value = loader.construct_document(node)
            found.append(Document(value, node.start_mark.line + 1, lines))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        fail(f"{name}{place}: {getattr(error, 'problem', None) or 'not YAML'}")
    finally:
        loader.dispose()
    return found


def steps(field: str) -> Path:
    """The path of a field as errors name it, such as `data_config.sources[1].path`."""
    return tuple(int(index) if index else key or name for key, index, name in _STEP.findall(field))


def line_of(lines: Lines, path: Path) -> int:
    """The line of a field, or of the nearest one around it; 0 for none."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 0


def _walk(node: Any, path: Path, *, lines: Lines, name: str) -> None:
    """Takes note of the lines; each anchor's content is walked where it is used, within bounds."""
    if len(path) > DEPTH_MAX or len(lines) > LINES_MAX:
        return
    if node.id == "sequence":
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _walk(item, (*path, index), lines=lines, name=name)
    elif node.id == "mapping":
        own: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in own and key.id == "scalar":
                fail(f"{name}:{line}: {key.value} is given twice")
            if key.id == "scalar":
                own.add(key.value)
                lines[(*path, key.value)] = line
                _walk(value, (*path, key.value), lines=lines, name=name)
