"""What the rooms of the agent tell each other: the files of a rank, findings in them, devices.

A rank's folder is `<data_dir>/leases/<lease>/rank-<r>/`. Its `stdout`, `stderr` and `events` are
plain files in append mode: what a rank prints is on disk before anybody reads it, whoever lives or
dies. The runtime (which starts ranks) and the spool (which reads and ships these files) meet here
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

STDOUT = "stdout"
STDERR = "stderr"
CPU_TYPE = "CPU"
EVENTS = "events"


@dataclass(frozen=True, slots=True)
class RankFiles:
    """Where one rank's files are, and whose they are. `rank` counts over all nodes.

    `remote` is below what its checkpoints are uploaded; "" for nowhere. `earlier` are those of the job's
    attempts before, oldest first, and `resumed` is the id of the one that this attempt goes on from.
    """

    path: Path
    job_id: str
    lineage_id: str
    attempt: int
    lease_id: str
    epoch: int
    rank: int
    checkpoint_dir: Path
    keep_checkpoints: int
    remote: str = ""
    earlier: tuple[ProvenCheckpoint, ...] = ()
    resumed: str = ""
    hang_after_ms: int = 0  # of silence; 0 is as it is learnt

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that speaks for the attempt."""
        return self.rank == 0


@dataclass(frozen=True, slots=True)
class ProvenCheckpoint:
    """A checkpoint whose files were read and digested (`sha256:…` of its manifest)."""

    checkpoint_id: str
    step: int
    uri: str
    size_bytes: int
    created_at_ms: int
    digest: str
    attempt: int


@dataclass(frozen=True, slots=True)
class LeaseFindings:
    """What the events of a lease's ranks said so far; the same after a restart of the agent.

    `settled`: every rank has ended, all that they wrote was read (sent or not), and nothing is
    being proven or uploaded any more, so that `done` and `checkpoints` will not change. An ended lease is
    reported as ended only then. `saved`: the number of the ask after which a checkpoint was announced
    and proven; 0 for none. Where `checkpoints` are to be uploaded they are those that were; `retired`
    are ids of uploaded ones of earlier attempts that are kept no more. `silent_since_ms`: when the training
    reported progress last, once that is too long ago; 0 before.
    """

    done: bool = False
    checkpoints: tuple[ProvenCheckpoint, ...] = ()
    checkpointing: bool = False
    settled: bool = True
    saved: int = 0
    retired: tuple[str, ...] = ()
    silent_since_ms: int = 0


class SpoolProtocol(Protocol):
    """Reads the files of ranks, ships them, proves checkpoints. Used from the event loop only.

    A lease is known by its id alone: of two epochs of one lease the older is forgotten before the
    newer is watched.
    """

    on_change: Callable[[str], None]
    """Called with a lease's id whenever its `findings` or `is_drained` have changed."""

    async def run(self) -> None:
        """Works until cancelled."""

    def watch(self, rank: RankFiles) -> None:
        """Begins with a rank, or goes on after a restart; its folder exists, its files may not."""

    def ended(self, lease_id: str, rank: int) -> None:
        """Says that nothing writes to the rank's files any more."""

    def ask(self, lease_id: str, number: int) -> None:
        """Says that the ranks are about to be asked for a checkpoint, for the time of this number."""

    def known(self, lease_id: str, checkpoint_ids: Sequence[str]) -> None:
        """Says which uploaded checkpoints the coordinator knows of; none of them is removed."""

    def is_drained(self, lease_id: str) -> bool:
        """Whether every rank has ended and all that it wrote is acknowledged (or unwanted)."""

    def findings(self, lease_id: str) -> LeaseFindings:
        """What is known of the lease; empty for one that is not watched."""

    def forget(self, lease_id: str) -> None:
        """Drops all that is held of the lease in memory, and writes nothing: its folder goes next."""


@dataclass(frozen=True, slots=True)
class DetectedDevice:
    """An accelerator that was found on this machine; `device_id` is a GPU's UUID.

    An instance of a GPU that is partitioned in hardware (MIG) is one too: it has a UUID and a type of its
    own (`H100-1g.10gb`), and the `index` of its GPU. `gpu_id` is that GPU's UUID, `profile` what the driver
    calls its size (`1g.10gb`), `instance` its number on the GPU; "" and 0 for whole GPUs.
    """

    device_id: str
    index: int
    type: str
    model: str
    memory_bytes: int
    simulated: bool = False
    healthy: bool = True
    gpu_id: str = ""
    profile: str = ""
    instance: int = 0

    @property
    def is_instance(self) -> bool:
        """Whether it is an instance of a partitioned GPU; a process can use one of these, no more."""
        return bool(self.profile)
