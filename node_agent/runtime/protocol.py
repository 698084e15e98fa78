"""What a runtime is: the one that turns an order into a running rank and says what became of it.

Processes on this machine are one; containers and clusters are others. All pass the same suite in
`tests/contract/runtimes/`. A rank is known by its folder: what a runtime has to remember about it
is found there again after a restart of the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from node_agent.core.leases import Fault, Rank


class CannotStart(Exception):
    """A rank that cannot come to run; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        """Keeps what the rank is reported with."""
        super().__init__(fault.message)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rank may use at most; 0 is no limit. `pids` counts threads too."""

    memory_bytes: int = 0
    cpu_thousandths: int = 0
    pids: int = 0


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the node that a container sees: under the same path, or as `target`."""

    path: Path
    writable: bool = False
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """The container that a rank runs in. `gpus` are UUIDs; amounts are 0 where nothing is asked for.

    An order whose `argv` is empty means the image's own program. Containers that are `together` (a name;
    "" for alone) have one network and one shared memory, whatever the network of the node's containers is.
    """

    image: str
    mounts: tuple[Mount, ...] = ()
    gpus: tuple[str, ...] = ()
    shm_bytes: int = 0
    together: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankOrder:
    """What to run as one rank, in a container where one is given.

    `subject` is what its program is called in messages to the user.

    `fence_after_ms`: the rank is stopped that long after the last contact, by whatever runs it and
    without the agent's help; 0: never.

    The folder `path` exists and is new; the runtime writes `stdout`, `stderr`, `started.json` and
    `exit.json` there.
    """

    path: Path
    rank: int
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    subject: str
    fence_after_ms: int = 0
    limits: Limits = Limits()
    container: Container | None = None


class Runtime(Protocol):
    """Runs ranks that outlive it. Used from the event loop only; nothing here blocks it."""

    on_change: Callable[[Path], None]
    """Called with a rank's folder whenever what `observe` says of the rank has changed."""

    async def open(self) -> None:
        """Gets ready to start ranks quickly."""

    async def end_strays(self, known: Collection[Path]) -> None:
        """Ends this node's ranks that are in none of the `known` folders: its state was lost."""

    def start(self, order: RankOrder) -> None:
        """Begins to start a rank, which is known from now on. A folder is started at most once."""

    async def adopt(self, path: Path, rank: int) -> None:
        """Finds a rank again that an earlier agent started, or tried to start."""

    def stop(self, path: Path, grace_ms: int) -> None:
        """SIGTERM now, SIGKILL to all of it after the grace; asked again it shortens the grace."""

    def save(self, path: Path) -> None:
        """Asks a rank for a checkpoint (SIGUSR1); one that does not listen is left alone."""

    def fence(self, path: Path, after_ms: int) -> None:
        """Changes `fence_after_ms` of a rank."""

    def observe(self, path: Path) -> Rank:
        """What is known of a rank that was started or adopted."""

    def forget(self, path: Path) -> None:
        """Drops what is held of an ended rank in memory."""

    async def close(self) -> None:
        """Lets go of everything; ranks go on."""
