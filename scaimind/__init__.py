"""What users import: the in-job library, the typed client and the command line.

Every rank of every job imports this module, so it loads nothing by itself: a name is
imported from its own module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaimind.job import Attempt, init

__all__ = ["Attempt", "init"]

_HOMES = {"Attempt": "scaimind.job", "init": "scaimind.job"}


def __getattr__(name: str) -> object:
    """Import `name` from its home; AttributeError where this package has no such name."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
