"""A core that is checked in full after every test, and the commands that tests give it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from coordinator.core.commands import (
    Caller,
    CancelJob,
    Command,
    ObservedLease,
    Recover,
    SubmitJob,
    SyncNode,
)
from coordinator.core.core import Core, CoreSettings
from coordinator.core.decision import Decision, Rejected, Reply
from coordinator.core.records import Demand, Device, Job, Lease, LeaseState, Offer, Policy

NOW_MS = 1_000_000
SMALL = CoreSettings(max_live_jobs=5, max_requests=3, max_checkpoints=3, max_placements_per_pass=2)


def offer(node_id: str, count: int, **more: Any) -> Offer:
    """An offer of `count` devices of type H100."""
    devices = tuple(
        Device(device_id=f"{node_id}-{index}", index=index, type="H100") for index in range(count)
    )
    return Offer(**{"devices": devices, "cpu_count": 64, "memory_bytes": 1 << 40, **more})


def caller(**more: Any) -> Caller:
    """Somebody of the tenant acme."""
    return Caller(**{"tenant_id": "acme", "user_id": "ada", **more})


class Bench:
    """A core, a clock that is moved by hand, and short ways to ask."""

    def __init__(self, settings: CoreSettings | None = None) -> None:
        self.core = Core(settings)
        self.now_ms = NOW_MS
        self._sequence = 0
        self._offers: dict[str, Offer] = {}
        self.step(Recover(epoch=1))

    def step(self, command: Command) -> Decision:
        """One command; a refusal must leave everything as it was."""
        before = self.core.digest()
        decision = self.core.step(command, self.now_ms)
        if isinstance(decision.reply, Rejected):
            assert not decision.events
            assert not decision.effects
            assert self.core.digest() == before
        return decision

    def schedule(self) -> Decision:
        """One placement pass."""
        return self.core.schedule(self.now_ms)

    def node(self, node_id: str, count: int = 1, **more: Any) -> None:
        """A node joins, or offers something else."""
        self._offers[node_id] = offer(node_id, count, **more)
        self.report(node_id)
        self.schedule()

    def report(self, node_id: str, *leases: ObservedLease, **more: Any) -> Decision:
        """A report of a node."""
        self._sequence += 1
        fields: dict[str, Any] = {
            "node_id": node_id,
            "incarnation": "a",
            "generation": 1,
            "sequence": self._sequence,
            "offer": self._offers[node_id],
            "leases": leases,
        }
        return self.step(SyncNode(**{**fields, **more}))

    def submit(self, job_id: str, devices: int = 1, **more: Any) -> Reply | Rejected:
        """Submits and places."""
        policy = {name: more.pop(name) for name in list(more) if name in Policy.__slots__}
        demand = {name: more.pop(name) for name in list(more) if name in Demand.__slots__}
        fields: dict[str, Any] = {
            "caller": caller(),
            "job_id": job_id,
            "name": job_id,
            "demand": Demand(device_count=devices, **demand),
            "policy": Policy(**policy),
            "document": b"",
        }
        decision = self.step(SubmitJob(**{**fields, **more}))
        self.schedule()
        assert decision.reply is not None
        return decision.reply

    def cancel(self, job_id: str) -> Reply | Rejected:
        """Cancels."""
        reply = self.step(CancelJob(caller=caller(), job_id=job_id)).reply
        assert reply is not None
        return reply

    def job(self, job_id: str) -> Job:
        """A live job."""
        return self.core.state.jobs[job_id]

    def lease(self, lease_id: str) -> Lease:
        """A live lease."""
        return self.core.state.leases[lease_id]

    def seen(self, lease_id: str, state: LeaseState, **more: Any) -> ObservedLease:
        """A lease as its agent reports it."""
        epoch = more.pop("epoch", self.lease(lease_id).epoch)
        started_at_ms = self.now_ms if state >= LeaseState.RUNNING else 0
        fields = {"lease_id": lease_id, "epoch": epoch, "state": state}
        return ObservedLease(**{**fields, "started_at_ms": started_at_ms, **more})


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A core with ordinary settings."""
    found = Bench()
    yield found
    found.core.check_invariants()


@pytest.fixture
def small() -> Iterator[Bench]:
    """A core with small bounds."""
    found = Bench(SMALL)
    yield found
    found.core.check_invariants()
