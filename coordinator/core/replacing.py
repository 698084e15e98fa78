"""`dataclasses.replace` for the frozen records of the core, at a fifth of its cost.

Every change of the state replaces a record whole. The library's `replace` calls the record's `__init__`
with each field by its name, which takes longer than most decisions; this one copies the slots. Whoever
checks types sees the library's, which knows the fields of each record.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import replace as replace
else:

    def replace(record, /, **changes):
        """A copy of a frozen record with slots, with some of its fields changed.

        Raises TypeError where there is no such field.
        """
        return _copier(type(record))(record, changes)


Copier = Callable[[Any, dict[str, Any]], Any]


@cache
def _copier(made: type) -> Copier:
    """How records of a class are copied."""
    names = [field.name for field in dataclasses.fields(made)]
    slots = vars(made).get("__slots__")
    if slots is None or list(slots) != names or len(names) < 2 or hasattr(made, "__post_init__"):
        return lambda record, changes: dataclasses.replace(record, **changes)
    read = attrgetter(*names)
    puts = {name: getattr(made, name).__set__ for name in names}

    def copy(record: Any, changes: dict[str, Any]) -> Any:
        if not puts.keys() >= changes.keys():
            raise TypeError(f"a {made.__name__} has no {sorted(changes.keys() - puts.keys())}")
        new: Any = object.__new__(made)
        for put, value in zip(puts.values(), read(record), strict=True):
            put(new, value)
        for name, value in changes.items():
            puts[name](new, value)
        return new

    return copy
