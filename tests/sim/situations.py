"""Which situations a world has seen, and how often.

One that no seed ever sees is a fault of the simulator.
"""

from __future__ import annotations

from collections import Counter
from typing import get_args

from coordinator.core.commands import Command
from coordinator.core.decision import Changed, Event
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Lease, LeaseState, Node
from coordinator.core.tables import ASIDE, BORN, CONTACT, DUTY, JOB, RUNNING, contact, duty
from node_agent.core.reconcile import Action
from tests.sim.topology import KEYS
from tests.sim.truth import Checker

LEASES = tuple(f"lease {state.name}" for state in LeaseState)
JOBS = tuple(f"job {status}" for status in (*BORN, *RUNNING, *ASIDE))
ENDS = ("job COMPLETED", "job FAILED", "job CANCELLED")
FACTS = tuple(
    f"fact {cause}"
    for cause in (
        Reason.ACCEPTED,
        Reason.PLACED,
        Reason.LEASE_OBSERVED,
        Reason.LEASE_STOP_ASKED,
        Reason.LEASE_ENDED,
        Reason.FINISHED,
        Reason.RETRYING,
        Reason.RANK_FAILED,
        Reason.NODE_LOST,
        Reason.CANCELLED_BY_USER,
        Reason.CHECKPOINT_ASKED,
        Reason.PAUSED_BY_USER,
        Reason.DRAIN_REQUESTED,
    )
)
"""Facts of a batch with which something may go wrong."""

STREAMS = ("push", "follow")
ASKED = ("report", "submit", "cancel", "batch", "key", "join")

MET: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("message lost", "message late"), (*ASKED, *STREAMS)),
    "message repeated": ASKED,
    **dict.fromkeys(
        (
            "crash before the write",
            "crash before the fsync",
            "crash before the reply",
            "crash before the effects",
            "commit fails",
            "commit lands but fails",
        ),
        (*FACTS, "fact APPENDED"),
    ),
    **dict.fromkeys(
        (
            "crash in recovery",
            "coordinator crashes",
            "coordinator stalls",
            "coordinator away",
            "coordinator clock jumps",
            "batches lost",
            "node not heard",
            "node does not hear",
            "node cut off",
            "agent dies",
            "agent frozen",
            "agent reinstalled",
            "all agents reconnect",
            "node clock jumps",
            "power cut",
            "power cut, disk lost",
            "node cloned",
            "node gone",
            "device trouble",
            "drain",
            "drain by force",
            "drain with a deadline",
            "drain that moves",
            "maintenance",
            "enable",
        ),
        LEASES,
    ),
    "cancel": (*JOBS, *LEASES, *ENDS),
    "pause": (*JOBS, *LEASES, *ENDS),
    "preempt": (*JOBS, *LEASES),
    "stranger": (*JOBS, *LEASES, *ENDS),
    "reader returns": ("at the beginning", "in the middle", "at the end"),
    "gap": ("SPOOL_FULL", "RETENTION", "RESET"),
    "hang": ("REPORT", "RESTART", "STOP", "is free", "costs"),
    "image": ("kept", "kept in a later attempt", "one node", "several nodes"),
    **dict.fromkeys(
        ("image moves", "registry away", "engine away"), ("lease GRANTED", "lease RUNNING")
    ),
    **dict.fromkeys(("container removed", "out of memory"), ("lease RUNNING",)),
    "node relocated": ("lease RUNNING", "lease ENDED"),
    "kept within": (
        *(f"{key}: {size}" for key in KEYS for size in ("one node", "several nodes")),
        "is placed",
        "has room",
    ),
    "deadline": ("goes before who came earlier",),
    "near checkpoint": ("is awaited", "in time"),
    "raised": ("waits", "placed"),
    "moved": ("is asked", "goes on", "stays"),
    "data": ("is awaited", "comes free", "does not come free"),
    "quota": ("from the beginning", "after others or a time", "is let in"),
    "start time": ("while nobody led", "while somebody led"),
    "resume": ("job PAUSED", "job CHECKPOINTING"),
    "change": (*JOBS, *LEASES, *ENDS),
    "retry": ("job FAILED", "job PREEMPTED"),
}
"""With what each fault must meet in the seeds of the suite."""


def expected() -> set[str]:
    """Everything that the seeds together must see."""
    jobs = {f"job {status} {cause}" for status, cause in JOB}
    nodes = {f"node {fact} {cause}" for fact, cause in (*CONTACT, *DUTY)}
    played = {f"played {one.__name__}" for one in (*get_args(Command), *get_args(Action))}
    met = {f"{fault} × {what}" for fault, whats in MET.items() for what in whats}
    return jobs | nodes | played | set(LEASES) | met


class Situations(Checker):
    """Counts every edge that is taken, and what faults met with."""

    facts = (Job, Lease, Node)

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._jobs: dict[str, Job] = {}
        self._nodes: dict[str, Node] = {}

    def fault(self, fault: str, *whats: str) -> None:
        """A fault has come, and these things were there."""
        self.seen[f"fault {fault}"] += 1
        for what in dict.fromkeys(whats):
            self.seen[f"{fault} × {what}"] += 1

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        match event.record:
            case Job() as job:
                before = self._jobs.get(job.job_id)
                self._jobs[job.job_id] = job
                if before is not None and before.status is not job.status:
                    self.seen[f"job {before.status} {event.cause}"] += 1
            case Lease() as lease:
                self.seen[f"lease {lease.state.name}"] += 1
            case Node() as node:
                known = self._nodes.get(node.node_id)
                self._nodes[node.node_id] = node
                if known is not None:
                    self._node(known, event.cause)

    def _node(self, before: Node, cause: Reason) -> None:
        self.seen[f"node {contact(before)} {cause}"] += 1
        self.seen[f"node {duty(before)} {cause}"] += 1
