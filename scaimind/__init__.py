"""What users import: the in-job library, the typed client and the command line.

Every rank of every job imports this module, so it loads nothing by itself: a name is
imported from its own module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaimind.client import (
        Aborted,
        AlreadyExists,
        AsyncClient,
        Client,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        MindError,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
    )
    from scaimind.job import Attempt, init

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "Attempt",
    "Client",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "MindError",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "init",
]

_IN_JOB = ("Attempt", "init")
_HOMES = {name: "scaimind.job" if name in _IN_JOB else "scaimind.client" for name in __all__}


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
