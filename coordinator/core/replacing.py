"""`dataclasses.replace` for the frozen records of the core, at a fifth of its cost.

Every change of the state replaces a record whole. The library's `replace` calls the record's `__init__`
with each field by its name, and that sets each past the class that is frozen: both take longer than most
decisions. Here a draft is written: an object of a class with the same slots that is not frozen, by code
that is made once for each class and choice of fields, as the library makes `__init__`. Then the draft
becomes a record. Whoever checks types sees the library's, which knows the fields of each record.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import replace as replace
else:

    def replace(record, /, **changes):
        """A copy of a frozen record with slots, with some of its fields changed.

        Raises TypeError where there is no such field.
        """
        what = (type(record), *changes)
        copy = _copiers.get(what) or _copier(*what)
        return copy(record, changes)


Copier = Callable[[Any, dict[str, Any]], Any]


@cache
def draft_of(made: type) -> type:
    """A class with the slots of a record's, not frozen; its objects become records by their `__class__`."""
    names = [field.name for field in dataclasses.fields(made)]
    return type(f"Draft{made.__name__}", (), {"__slots__": names})


_copiers: dict[tuple[Any, ...], Copier] = {}  # by class and names of fields, as the code names them


def _copier(made: type, *changed: str) -> Copier:
    """How records of a class are copied with changes of some fields."""
    names = [field.name for field in dataclasses.fields(made)]
    unknown = [name for name in changed if name not in names]
    if unknown:
        raise TypeError(f"a {made.__name__} has no {unknown[0]}")
    slots = vars(made).get("__slots__")
    if slots is None or list(slots) != names or hasattr(made, "__post_init__"):
        return lambda record, changes: dataclasses.replace(record, **changes)
    values = [f"changes[{name!r}]" if name in changed else f"record.{name}" for name in names]
    lines = [
        "def copy(record, changes):",
        "    new = draft()",
        *(f"    new.{name} = {value}" for name, value in zip(names, values, strict=True)),
        "    new.__class__ = made",
        "    return new",
    ]
    space: dict[str, Any] = {"draft": draft_of(made), "made": made}
    exec("\n".join(lines), space)
    copy: Copier = space["copy"]
    _copiers[made, *changed] = copy
    return copy
