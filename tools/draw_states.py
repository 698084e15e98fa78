"""Draws docs/states.md and docs/errors.md from the tables of the core and the gateway: `make docs`.

What is drawn here is never edited by hand; tests/architecture compares the files with the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import grpc

from coordinator.core.reasons import TABLE, Reason
from coordinator.core.records import JobStatus, Kind, LeaseState
from coordinator.core.tables import BORN, CONTACT, DUTY, HEALTH, JOB, LEASE, final_statuses
from gateway import codes
from gateway.status import TABLE as STATUSES

State = TypeVar("State", bound=StrEnum)
DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTE = "<!-- Drawn by tools/draw_states.py from the tables in the source. Do not edit; run `make docs`. -->"

STATES = """\
# States

{note}

Every change of status is an edge of one of these tables (`coordinator/core/tables.py`); what is not in
them is an error that stops the coordinator. Each edge that is taken is one event with its cause and who
caused it, even when one report of an agent jumps over several.

## Jobs

A job is born {born}. {final} are final: such a job never changes again, and leaves the
coordinator's memory once no agent holds anything of it; its history is read from the store.

{jobs}

Statuses that no edge of this version reaches: {unreached}.

- A stop that was asked for (a drain, the time limit, a failed rank) does not change the status: the
  attempt is marked with its cause, and the edge is taken when every rank has ended. A cancel is the
  exception: the job is CANCELLED at once, and its devices are free when its agents say so.
- A job that is to leave its devices in good order (paused, preempted) is CHECKPOINTING while its
  checkpoint is awaited, and takes the edge when it is proven and every rank has ended. Where a user
  wishes that it be held, it is PAUSED wherever it would be QUEUED again by itself.
- A job that waits after a failure is QUEUED, and is not placed before its wait is over.
- A job whose dependency ends FAILED or CANCELLED is FAILED with DEPENDENCY_FAILED and an error of
  category CONFIG: what it was to go on from will never exist.

## Leases

A lease's state is what its agent last observed. A report may skip states; it never goes back.

{leases}

## Nodes

Contact and duty are independent. A node out of contact, or drained, is given no job; what runs there is
taken to go on.

{contact}

{duty}

How far a node, and each of its devices, is trusted is a grade (`coordinator/core/health.py`). Points decide
which of several arrows a cause takes; on probation and in quarantine nothing new is placed there, and what
runs goes on.

{health}

## Who writes what

| Record | Field | Writer |
| --- | --- | --- |
{writers}
"""

WRITERS = (
    (Kind.JOB, "demand, policy, name, labels, priority, queue", "its user, once, by submitting it"),
    (Kind.JOB, "status, reason, attempt, failures", "the core"),
    (Kind.JOB, "checkpoints, output model", "the agent of node rank 0, of what still exists"),
    (Kind.LEASE, "devices, host's share, ranks, epoch", "the core, once, by granting it"),
    (Kind.LEASE, "action, grace (desired)", "the core"),
    (Kind.LEASE, "state, done, failure, times (observed)", "the agent of its node"),
    (Kind.NODE, "offer, generation, incarnation (observed)", "its agent"),
    (Kind.NODE, "drain (desired)", "an admin; the core adds force when its deadline has passed"),
    (Kind.NODE, "unreachable since", "the core"),
    (Kind.NODE, "health", "the core, from what agents and jobs tell, and an admin's word"),
    (Kind.KEY, "all", "an admin"),
    (Kind.REQUEST, "all", "the core, once, with the answer"),
    (Kind.MIX, "all", "the core, every so many submits"),
    (Kind.DOCUMENT, "all", "its user, once, by submitting the job"),
)

ERRORS = """\
# Errors and reasons

{note}

Every refusal carries a reason: over gRPC as `reason` of its `google.rpc.ErrorInfo`, over REST as
`error.code`. Names never change their meaning. Beside it stand, over both,

- the fields at fault (`google.rpc.BadRequest`; REST: `error.details`, pairs of `field` and `message`),
- when to ask again (`google.rpc.RetryInfo`; REST: `error.retry_after` in seconds and `Retry-After`),
- the request id (`request_id` in the metadata of the ErrorInfo; REST: `meta.request_id`, `X-Request-Id`),
  under which the logs know more than a caller is told.

"Ask again?" says whether the same request may succeed later. Clients repeat by themselves only what is
UNAVAILABLE (503), with the same `request_id` (`Idempotency-Key`).

## Refusals of the coordinator

| Reason | gRPC code | HTTP | Ask again? | Meaning |
| --- | --- | --- | --- | --- |
{refusals}

## What the gateway says by itself

| Code | HTTP | Ask again? | Meaning |
| --- | --- | --- | --- |
{gateway}

## Why a thing is as it is

| Reason | Meaning |
| --- | --- |
{others}
"""


def pages() -> dict[Path, str]:
    """What each page must say."""
    return {DOCS / "states.md": states_page(), DOCS / "errors.md": errors_page()}


def states_page() -> str:
    """The diagrams of jobs, leases and nodes."""
    reached = {*BORN, *JOB.values()}
    return STATES.format(
        note=NOTE,
        born=" or ".join(BORN),
        final=", ".join(final_statuses()),
        jobs=_jobs(),
        unreached=", ".join(status for status in JobStatus if status not in reached),
        leases=_diagram(
            [("[*]", LeaseState.GRANTED.name, "LEASE_GRANTED")]
            + [(a.name, b.name, "") for a, later in LEASE.items() for b in later]
            + [(LeaseState.ENDED.name, "[*]", "forgotten by its agent")]
        ),
        contact=_of_node(CONTACT, "IN_CONTACT"),
        duty=_of_node(DUTY, "ENABLED"),
        health=_diagram(
            [("[*]", "HEALTHY", Reason.NODE_JOINED.value)]
            + [
                (old.value, new.value, cause.value)
                for (old, cause), after in HEALTH.items()
                for new in dict.fromkeys(after)
                if new is not old
            ]
        ),
        writers="\n".join(f"| {kind} | {fields} | {who} |" for kind, fields, who in WRITERS),
    )


def errors_page() -> str:
    """The tables of reasons and codes."""
    refusals, others = [], []
    for reason, row in TABLE.items():
        if row.code:
            again = "yes" if row.retryable else "no"
            http = _http(getattr(grpc.StatusCode, row.code))
            refusals.append(f"| {reason} | {row.code} | {http} | {again} | {row.doc} |")
        else:
            others.append(f"| {reason} | {row.doc} |")
    own = [
        f"| {code} | {row.http_status} | {'yes' if row.retryable else 'no'} | {row.doc} |"
        for code, row in codes.TABLE.items()
    ]
    return ERRORS.format(
        note=NOTE,
        refusals="\n".join(refusals),
        gateway="\n".join(own),
        others="\n".join(others),
    )


def _http(code: grpc.StatusCode) -> str:
    """How a reason of this gRPC code is told over REST."""
    if code is grpc.StatusCode.OUT_OF_RANGE:
        return "204"
    row = STATUSES[code]
    hidden = row.code is codes.Code.INTERNAL_ERROR
    return f"{row.http_status} {row.code}" if hidden else str(row.http_status)


def _jobs() -> str:
    edges = [("[*]", status.value, Reason.ACCEPTED.value) for status in BORN]
    edges += [(a.value, b.value, cause.value) for (a, cause), b in JOB.items()]
    edges += [(status.value, "[*]", "") for status in final_statuses()]
    return _diagram(edges)


def _of_node(table: Mapping[tuple[State, Reason], State], first: str) -> str:
    edges = [("[*]", first, Reason.NODE_JOINED.value)]
    edges += [(a.value, b.value, cause.value) for (a, cause), b in table.items()]
    return _diagram(edges)


def _diagram(edges: Iterable[tuple[str, str, str]]) -> str:
    """One arrow per pair of states, with all of its causes."""
    causes: dict[tuple[str, str], list[str]] = {}
    for start, end, cause in edges:
        causes.setdefault((start, end), []).append(cause)
    lines = [
        f"    {start} --> {end}" + (f": {', '.join(names)}" if any(names) else "")
        for (start, end), names in causes.items()
    ]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def main() -> None:
    """Writes the pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
