"""Exit codes, and what is said of an error: one line, the fields at fault, what to do next."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from scaimind.cli.text import clean, duration

if TYPE_CHECKING:
    from scaimind.client.errors import MindError

OK = 0
JOB_FAILED = 1
USAGE = 2
NOT_FOUND = 3
DENIED = 4
WRONG_STATE = 5
UNAVAILABLE = 6
INTERRUPTED = 130

_CODES = {
    "INVALID_ARGUMENT": USAGE,
    "NOT_FOUND": NOT_FOUND,
    "PERMISSION_DENIED": DENIED,
    "UNAUTHENTICATED": DENIED,
    "FAILED_PRECONDITION": WRONG_STATE,
    "ALREADY_EXISTS": WRONG_STATE,
    "ABORTED": WRONG_STATE,
}
LATER = frozenset(("QUEUE_FULL", "OVERLOADED", "STORE_UNAVAILABLE", "NOT_LEADER", "INTERNAL"))
"""Reasons for which a job of a batch was refused that are not its own fault."""
_HINTS = {
    "NEVER_FITS": "`scaimind nodes` shows what there is; ask for less, or add nodes",
    "INVALID_ARGUMENT": "put this right and send it again; nothing was accepted",
    "NOT_FOUND": "`scaimind jobs` and `scaimind nodes` list what there is",
    "PERMISSION_DENIED": "ask an admin for a key that allows it (`scaimind keys create --help`)",
    "UNAUTHENTICATED": "give a key with --api-key or MIND_API_KEY; `scaimind up` writes one to"
    " DIR/admin.key",
    "FAILED_PRECONDITION": "`scaimind job ID` and `scaimind nodes` show the present state",
    "ALREADY_EXISTS": "the request id was used before, with another request",
    "ABORTED": "it changed in between; look again and repeat",
    "DEADLINE_EXCEEDED": "it may still be happening; look before you repeat it",
    "UNIMPLEMENTED": "this coordinator does not offer it",
    "INTERNAL": "the coordinator's log knows more",
}


class Fault(Exception):
    """Something that a person can put right: a message, lines that show it, a hint, the exit code."""

    def __init__(
        self, message: str, *, lines: Iterable[str] = (), hint: str = "", code: int = USAGE
    ) -> None:
        super().__init__(message)
        self.lines = tuple(lines)
        self.hint = hint
        self.code = code


def fail(message: str, *, hint: str = "", code: int = USAGE) -> NoReturn:
    """Ends the verb with an error."""
    raise Fault(message, hint=hint, code=code)


def report_fault(fault: Fault) -> int:
    """Says what is wrong on stderr; returns the exit code."""
    _say(f"error: {fault}")
    for line in fault.lines:
        _say(f"  {line}")
    if fault.hint:
        _say(f"hint: {fault.hint}")
    return fault.code


def report_error(error: "MindError", server: str) -> int:
    """Says what the coordinator refused on stderr; returns the exit code."""
    # Without a reason it is not the coordinator's answer but that of the transport, which is long.
    unreached = error.reason == "UNAVAILABLE"
    message = f"no coordinator answers at {server}" if unreached else error.message
    _say(f"error: {message} ({error.reason})")
    for fault in error.details:
        line = f"{fault.field}: {fault.message}" if fault.field else fault.message
        if line != error.message:
            _say(f"  {line}")
    hint = _hint(error, server)
    if hint:
        _say(f"hint: {hint}")
    if error.request_id:
        _say(f"request: {error.request_id}")
    return _CODES.get(error.code, UNAVAILABLE)


def _hint(error: "MindError", server: str) -> str:
    if error.code == "UNAVAILABLE":
        return "`scaimind up` starts one here; --server or MIND_GRPC names one elsewhere"
    if error.retry_after_s is not None:
        return f"try again in {duration(error.retry_after_s)}"
    if error.code == "RESOURCE_EXHAUSTED":
        return "try again later"
    return _HINTS.get(error.reason) or _HINTS.get(error.code, "")


def _say(line: str) -> None:
    print(clean(line), file=sys.stderr)
