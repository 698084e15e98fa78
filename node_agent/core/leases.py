"""What the agent knows of its leases and their ranks, and what follows from it.

Observed and desired are separate: the agent writes what it observes, the coordinator what it
desires. States only ever move forward. All times are integer milliseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from node_agent.core.causes import Category as Category
from node_agent.core.causes import category_of


class State(IntEnum):
    """Where a rank or a lease is; the numbers are those of the protocol."""

    ACCEPTED = 1
    PREPARING = 2
    RUNNING = 3
    STOPPING = 4
    ENDED = 5


WHOLE = 1000  # thousandths of a device


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong, for the user. A rank's exit code or signal where it had one, and its last lines."""

    category: Category
    message: str
    rank: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rank:
    """One local rank as observed. `stopped`: it was asked to stop before it ended.

    `fault` is what kept it from running, or took its supervisor away; an ordinary bad exit has
    none. `last_lines` are those of its stderr, oldest first.
    """

    rank: int
    state: State = State.ACCEPTED
    exit_code: int | None = None
    signal: int | None = None
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    stopped: bool = False
    fault: Fault | None = None
    last_lines: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it ended badly by itself: a rank that was asked to stop may end as it likes."""
        if self.state is not State.ENDED:
            return False
        return self.fault is not None or (not self.stopped and self.exit_code != 0)

    @property
    def succeeded(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.state is State.ENDED and self.fault is None and self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease as observed. (lease_id, epoch) names a grant for ever.

    `fault`: why none of its ranks was started. `stop_by_ms`: when the grace ends that was last
    given. `drained`: nothing that it wrote is still to be sent. `leaving`: being forgotten now.
    `device_ids`: what its ranks may be using until it has ended, so many `thousandths` of each.
    """

    lease_id: str
    epoch: int
    ranks: tuple[Rank, ...] = ()
    fault: Fault | None = None
    stop_by_ms: int | None = None
    drained: bool = False
    leaving: bool = False
    device_ids: tuple[str, ...] = ()
    thousandths: int = WHOLE

    @property
    def state(self) -> State:
        """The lease's state from those of its ranks: RUNNING is every rank, ENDED every rank."""
        least = State.ENDED
        for rank in self.ranks:
            if rank.state < least:
                least = rank.state
        if self.fault is not None or least is State.ENDED:
            return State.ENDED
        if self.stop_by_ms is not None:
            return State.STOPPING
        return min(State.RUNNING, least)

    @property
    def first_fault(self) -> Fault | None:
        """What went wrong first; None for nothing so far."""
        return self.fault or first_fault(self.ranks)

    @property
    def failed_at_ms(self) -> int:
        """When the first of its ranks failed, UTC; 0 where none did or nobody saw when."""
        return min((rank.ended_at_ms or 0 for rank in self.ranks if rank.failed), default=0)

    @property
    def succeeded(self) -> bool:
        """Whether every rank ended with exit code 0, and at least one did."""
        return bool(self.ranks) and self.fault is None and all(r.succeeded for r in self.ranks)


@dataclass(frozen=True, slots=True)
class Desired:
    """What the coordinator wants of a lease: `run`, or else a stop within `grace_ms`.

    `device_ids` and `thousandths` are those of its spec, where it has one.
    """

    lease_id: str
    epoch: int
    run: bool
    grace_ms: int
    has_spec: bool
    device_ids: tuple[str, ...] = ()
    thousandths: int = WHOLE


def first_fault(ranks: Sequence[Rank]) -> Fault | None:
    """The fault of the rank that failed first; the others mostly failed because of it.

    What a peer's end looks like to those that wait for it may be seen before that end itself: a
    fault of the network is only named where there is no other.
    """
    found = [fault for rank in _by_end(ranks) if (fault := _fault(rank)) is not None]
    first = next((fault for fault in found if fault.category is not Category.NETWORK), None)
    return first or next(iter(found), None)


def _by_end(ranks: Sequence[Rank]) -> list[Rank]:
    return sorted(ranks, key=lambda rank: (rank.ended_at_ms or 0, rank.rank))


def _fault(rank: Rank) -> Fault | None:
    if not rank.failed:
        return None
    known = rank.fault or Fault(category_of(rank.last_lines), _message(rank))
    return replace(
        known,
        rank=rank.rank,
        exit_code=rank.exit_code,
        signal=rank.signal,
        lines=rank.last_lines,
    )


_SIGNALS = {
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL, as the kernel does when memory runs out",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
    24: "SIGXCPU, more CPU time than its limit allows",
    25: "SIGXFSZ, a file larger than its limit allows",
}
_CODES = {
    126: "which in a shell means that a command cannot be executed",
    127: "which in a shell means that a command was not found",
}


def _message(rank: Rank) -> str:
    if rank.signal is not None:
        name = _SIGNALS.get(rank.signal)
        text = f"rank {rank.rank} was ended by signal {rank.signal}" + (
            f" ({name})" if name else ""
        )
    else:
        text = f"rank {rank.rank} exited with code {rank.exit_code}"
        code = rank.exit_code or 0
        if code in _CODES:
            text += f", {_CODES[code]}"
        elif code - 128 in _SIGNALS:
            text += f", which in a shell means signal {code - 128} ({_SIGNALS[code - 128]})"
    return f"{text}: {rank.last_lines[-1]}" if rank.last_lines else text
