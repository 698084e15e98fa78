"""Bugs to plant into the core, to see that the simulator finds them: the test of the test.

Each one is a line of the core's source that is changed while it is imported. What survives its bugs
proves nothing.
"""

from __future__ import annotations

import sys
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


BUGS: dict[str, tuple[Edit, ...]] = {
    "devices are free once a stop is asked for": (
        Edit("state", "if not lease.is_ended]", 'if lease.action == "RUN" and not lease.is_ended]'),
        Edit("state", "before.is_ended != lease.is_ended:", "True:"),
    ),
    "a late report is believed": (
        Edit("sync", "command.sequence <= heard.sequence", "False"),
        Edit("sync", "lease.observed_sequence) < _moment(command)", "0) < (1 << 62, 0)"),
    ),
    "an older agent is believed": (
        Edit("sync", "if not newer and not same:", "if False:"),
        Edit("sync", "(lease.observed_generation, lease.observed_sequence)", "(0, 0)"),
    ),
    "a lease on its way is lost": (
        Edit("sync", "elif lease.state is LeaseState.GRANTED:", "elif False:"),
    ),
    "a drained node gets jobs": (Edit("state", "or node.drain or", "or"),),
    "a node out of contact gets jobs": (Edit("state", " or node.unreachable_since_ms:", ":"),),
    "a bad device is given away": (Edit("state", "if d.healthy and ", "if "),),
    "losing a node costs a retry": (
        Edit(
            "retry",
            "Verdict(Reason.NODE_LOST, lost, ",
            "Verdict(Reason.NODE_LOST, lost, counts=True, ",
        ),
    ),
    "a drain costs a retry": (
        Edit("retry", "Verdict(Reason.NODE_DRAINED)", "Verdict(Reason.NODE_DRAINED, counts=True)"),
    ),
    "a failed rank leaves its gang running": (
        Edit("attempts", "job = stop(turn, job, cause=cause, failure=failure)", "pass"),
    ),
    "exit 0 after a stop is success": (
        Edit("retry", "return job.attempt.stop is None or said_so", "return True"),
    ),
    "a request is forgotten": (Edit("requests", "    if known is None:", "    if True:"),),
    "who found no room is never tried again": (
        Edit("state", "or any(len(ids) > counts.get(one, 0) for one, ids in after.pools)", ""),
    ),
    "the wait after a failure has no end": (Edit("state", "at_ms=backoff_ms", "at_ms=0"),),
    "nobody is told that a dependency ended": (
        Edit("attempts", "list(turn.state.dependents.get(job_id, ()))", "()"),
    ),
    "the time limit counts from the grant": (
        Edit("state", "attempt.started_at_ms + job", "attempt.granted_at_ms + job"),
    ),
    "an ended lease goes before its attempt is judged": (
        Edit("sync", "if job.is_final or judged or not _is_newest(job, lease):", "if True:"),
    ),
    "ranks are split over nodes": (
        Edit(
            "placement",
            "islice(pool.device_ids, ranks * self._unit)",
            "islice(pool.device_ids, ranks)",
        ),
    ),
    "only the first node of a drain is stopped": (
        Edit(
            "attempts",
            "if not lease.is_ended and lease.action is LeaseAction.RUN:",
            "if lease.node_rank == 0 and lease.action is LeaseAction.RUN and not lease.is_ended:",
        ),
    ),
    "a second cancel cause overwrites the record of a final job": (
        Edit("attempts", "if job.is_final or job.attempt is None:", "if job.attempt is None:"),
    ),
}


class _Planter(MetaPathFinder):
    """Finds the modules to change, and changes them."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edits

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        mine = [e for e in self._edits if fullname == f"coordinator.core.{e.module}"]
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


def plant(name: str) -> None:
    """Plants a bug; nothing of the core may have been imported yet."""
    if any(module.startswith("coordinator.core") for module in sys.modules):
        raise RuntimeError("the core was imported before the bug was planted")
    sys.meta_path.insert(0, _Planter(BUGS[name]))
