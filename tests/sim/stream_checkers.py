"""What must hold of logs and metrics: what ranks have printed against what is kept and shown."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence

from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.records import Kind, Lease
from coordinator.streams import reading
from coordinator.streams.protocol import Line
from node_agent.spool.lines import CONTINUED
from scaimind.agent.v1 import agent_service_pb2 as pb
from tests.sim.truth import Checker, Origin, Printed, SimFailure, Truth

ALL = 1_000_000
Sources = dict[Origin, list[Line]]


class LinesOnce(Checker):
    """Each line that a rank prints is kept once, in order and whole, or a gap says that it is not."""

    facts = (Lease, Retired)

    def __init__(
        self,
        truth: Truth,
        database: sqlite3.Connection,
        *,
        in_contact: Callable[[str], bool],
        spool_bytes: int,
    ) -> None:
        self._truth = truth
        self._database = database
        self._in_contact = in_contact  # whether a grant's node is
        self._spool_bytes = spool_bytes
        self._nodes: dict[str, str] = {}  # of leases
        self._partial: set[Origin] = set()  # whose last lines somebody who heard the end may lack

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Changed):
            if isinstance(event.record, Lease):
                self._nodes[event.record.lease_id] = event.record.node_id
        elif isinstance(event, Retired) and event.kind is Kind.NODE:
            for printed in self._truth.printed.values():  # what it has not sent is not taken later
                if any(self._nodes.get(lease_id) == event.id for lease_id, _ in printed.grants):
                    printed.is_cut = True

    def is_whole(self, origin: Origin, printed: Printed) -> bool:
        """Whether all that was printed had to arrive by now, in the eyes of the coordinator."""
        return not self._is_cut(printed) and origin not in self._partial

    def settled(self) -> None:
        for job_id in sorted({origin[0] for origin in self._truth.printed}):
            self._check(job_id, is_settled=True)

    def log_ended(self, job_id: str) -> None:
        for origin, printed in self._truth.printed.items():
            if origin[0] == job_id and not all(self._in_contact(id) for id, _ in printed.grants):
                self._partial.add(origin)
        self._check(job_id, is_settled=False)

    def _check(self, job_id: str, *, is_settled: bool) -> None:
        """All of a job's log as it is kept now."""
        kept = stored(self._database, job_id)
        log, _ = reading.bounds(self._database, job_id)
        for origin, printed in self._truth.printed.items():
            if origin[0] != job_id or printed.is_mixed:
                continue
            lines = kept.get(origin, [])
            whole = (is_settled or origin not in self._partial) and not self._is_cut(printed)
            if origin[3] == pb.EVENTS:
                if origin[2] == 0:  # the others report none
                    self._points(origin, printed, whole=whole)
                continue
            fault = wrong(
                [line.text for line in lines],
                bytes(printed.data).decode(),
                whole=whole,
                begun=log.first == 1,
                gaps=self._is_cut(printed) or len(printed.data) > self._spool_bytes,
            )
            if fault:
                raise SimFailure(f"{origin}: {fault}", job_id)

    def _is_cut(self, printed: Printed) -> bool:
        """Whether some of it may never come: of what a lost batch granted nobody knows any more."""
        return printed.is_cut or self._truth.rewinds > 0

    def _points(self, origin: Origin, printed: Printed, *, whole: bool) -> None:
        points = reading.points(self._database, origin[0], after=0, limit=ALL)
        steps = [one.point.step for one in points if one.point.attempt == origin[1]]
        if steps != list(range(1, len(steps) + 1)):
            raise SimFailure(f"{origin}: the steps are {steps}", origin[0])
        if whole and len(steps) != printed.lines:
            text = f"{origin}: {printed.lines} points were reported, {len(steps)} are kept"
            raise SimFailure(text, origin[0])


def stored(database: sqlite3.Connection, job_id: str) -> Sources:
    """Everything that is kept of a job's log, by where it comes from."""
    kept: Sources = {}
    for line in all_lines(database, job_id):
        kept.setdefault((job_id, line.attempt, line.rank, line.channel), []).append(line)
    return kept


def all_lines(database: sqlite3.Connection, job_id: str) -> Iterator[Line]:
    """All lines of a job that are kept, by position."""
    after = 0
    while True:
        lines, looked = reading.lines(
            database, job_id, after=after, limit=ALL, rank=None, min_level=0
        )
        yield from lines
        if looked <= after:
            return
        after = looked


def wrong(kept: Sequence[str | None], printed: str, *, whole: bool, begun: bool, gaps: bool) -> str:
    """What is wrong with what is kept of a channel; "" for nothing. A None is a gap.

    `whole`: nothing may be missing at the end; `begun`: nor at the beginning; `gaps`: some may in between.
    """
    wanted = printed.split("\n")
    if not wanted[-1]:
        wanted.pop()
    texts = list(joined(kept))
    at, may_skip = 0, not begun
    for number, text in enumerate(texts, 1):
        if text is None:
            if not gaps:
                return "there is a gap and no reason for it"
            may_skip = True
            continue
        is_last = number == len(texts) and not whole  # its end may be lost with its machine
        is_last = is_last or texts[number : number + 1] == [None]  # or in a gap
        found = _found(wanted, at, text, may_skip=may_skip, is_last=is_last)
        if found is None:
            return f"{text!r} is kept where {wanted[at : at + 1]} was printed"
        at, may_skip = found + 1, False
    if whole and at < len(wanted) and not may_skip:
        return f"{wanted[at]!r} and what follows is missing"
    return ""


def _found(
    wanted: Sequence[str], at: int, text: str, *, may_skip: bool, is_last: bool
) -> int | None:
    """Where a text is among what was printed, from a place on."""
    for place in range(at, len(wanted) if may_skip else min(at + 1, len(wanted))):
        line = wanted[place]
        if (
            line == text
            or (may_skip and line.endswith(text))
            or (is_last and line.startswith(text))
        ):
            return place
    return None


def joined(kept: Sequence[str | None]) -> Iterator[str | None]:
    """Lines that came in pieces, as one, also where a gap of another source is told between them."""
    open_text: str | None = None
    is_gap = False
    for text in kept:
        if text is None and open_text is not None:
            is_gap = True
            continue
        if text is not None and open_text is not None and text.startswith(CONTINUED):
            text = open_text + text.removeprefix(CONTINUED)
        elif open_text is not None:
            yield open_text
        if is_gap:
            yield None
            is_gap = False
        open_text = None
        if text is not None and text.endswith(CONTINUED):
            open_text = text.removesuffix(CONTINUED)
        else:
            yield text
    if open_text is not None:
        yield open_text
    if is_gap:
        yield None
