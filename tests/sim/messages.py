"""What agents and the simulated coordinator say to each other: the protocol, without its encoding."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.commands import SyncNode
from coordinator.core.records import WHOLE, Lease, LeaseAction
from node_agent.core import leases as agent


@dataclass(frozen=True, slots=True)
class Call:
    """One Sync call of an agent."""

    number: int  # names the call for ever; an answer to another call is dropped
    report: SyncNode
    seen: int | None
    hold_ms: int


@dataclass(frozen=True, slots=True)
class Order:
    """One lease of the desired list. The grant goes along while the agent has not reported it."""

    lease_id: str
    epoch: int
    run: bool
    grace_ms: int
    spec: Lease | None
    told_at_commit: int  # commits behind the answer
    save: int = 0  # number of the checkpoint that is asked for
    image: str = ""  # what the job's image is, where that is known

    @staticmethod
    def of(lease: Lease, told_at_commit: int, *, is_known: bool = False, image: str = "") -> Order:
        """The order that a lease of the coordinator becomes."""
        run = lease.action is LeaseAction.RUN
        spec = lease if run and not is_known else None
        told = told_at_commit, lease.save, image
        return Order(lease.lease_id, lease.epoch, run, lease.grace_ms, spec, *told)

    def desired(self) -> agent.Desired:
        """As the agent's core reads it."""
        return agent.Desired(
            lease_id=self.lease_id,
            epoch=self.epoch,
            run=self.run,
            grace_ms=self.grace_ms,
            has_spec=self.spec is not None,
            device_ids=self.spec.device_ids if self.spec is not None else (),
            thousandths=self.spec.thousandths if self.spec is not None else WHOLE,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The desired list, by a leader of an epoch."""

    call: int
    leader_epoch: int
    revision: int
    leases: tuple[Order, ...]
    superseded: bool = False
    canary: tuple[int, tuple[str, ...]] | None = None  # its number, and on which devices
    expected: tuple[tuple[str, str], ...] = ()  # jobs that are to come here, and their images
