"""What ranks print, and what faults make of it: real files on the disks of simulated machines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from node_agent.ranks import EVENTS, STDERR, STDOUT, RankFiles
from node_agent.spool.channels import CHANNELS
from tests.sim.clock import SECOND, Loop
from tests.sim.truth import Printed, Truth

PAUSES_MS = (1, 100, SECOND, 5 * SECOND, 20 * SECOND)
PADS = (0, 0, 0, 20, 200, 2000)
ACKED = "acked.json"


class Output:
    """The folders of one machine's leases. `changed` is told of the folder of a rank that prints."""

    def __init__(self, root: Path, loop: Loop, rng: Random, *, truth: Truth) -> None:
        self.changed: Callable[[Path], None] = lambda path: None
        self._root = root
        self._loop = loop
        self._rng = rng
        self._truth = truth
        self._files: dict[tuple[str, int, int], RankFiles] = {}
        self.is_past = False  # another machine has taken the node's name over
        self._on_disk: dict[Path, None] = {}  # folders that have survived a power cut

    def files(self, key: tuple[str, int], attempt: tuple[str, int], *, rank: int) -> RankFiles:
        """Where one rank's files are."""
        known = self._files.get((*key, rank))
        if known is None:
            path = self._folder(key) / f"rank-{rank}"
            job_id, number = attempt
            known = RankFiles(path, job_id, job_id, number, *key, rank, path / "checkpoints", 3)
            self._files[*key, rank] = known
        return known

    def make(self, rank: RankFiles) -> None:
        """An empty folder for a rank that is about to be started."""
        rank.path.mkdir(parents=True)
        for name in CHANNELS:
            os.close(os.open(f"{rank.path}/{name}", os.O_WRONLY | os.O_CREAT))
            printed = self._printed(rank, name)
            printed.is_mixed = printed.is_mixed or bool(printed.data)

    def write(self, rank: RankFiles, *, last: bool = False) -> int:
        """The rank prints something; answers after how many ms it may do so again."""
        rng = self._rng
        name = rng.choice((STDOUT, STDOUT, STDOUT, STDERR, EVENTS if rank.is_main else STDOUT))
        printed = self._printed(rank, name)
        grant = (rank.lease_id, rank.epoch)
        printed.is_mixed = printed.is_mixed or printed.writer not in (None, grant)
        printed.writer = grant
        count = rng.randint(1, 5)
        if name == EVENTS:
            first = printed.lines + 1
            text = "".join(_metrics(first + more) for more in range(count))
        else:
            lines = [self._line(rank, name, printed.lines + more) for more in range(count)]
            text = "\n".join(lines) + ("\n" if rng.random() < (0.5 if last else 0.9) else "")
        printed.lines += count
        self._append(rank, name, text.encode())
        return rng.choice(PAUSES_MS) * (1 + printed.lines // 5)

    def lose(self, key: tuple[str, int]) -> None:
        """The folder of a lease is gone, with what was not sent."""
        for printed in self._truth.printed_by(key):
            printed.is_cut = True
        self.remove(key)

    def remove(self, key: tuple[str, int]) -> None:
        """The folder of a lease is not needed any more."""
        shutil.rmtree(self._folder(key), ignore_errors=True)

    def cut_power(self, rank: RankFiles) -> None:
        """What the kernel had not brought to the disk is gone."""
        rng = self._rng
        if rank.path in self._on_disk:
            return  # since an earlier time: nobody has written since
        self._on_disk[rank.path] = None
        for name in CHANNELS:
            size = os.path.getsize(f"{rank.path}/{name}")
            kept = rng.choice((size, size, rng.randint(0, size)))
            if kept < size:
                os.truncate(rank.path / name, kept)
                self._printed(rank, name).is_cut = True
        acked = rank.path / ACKED
        what = rng.random()
        if what < 0.2:
            acked.unlink(missing_ok=True)
        elif what < 0.4 and acked.exists():
            os.truncate(acked, 0)

    def copy_to(self, other: Output) -> None:
        """Another machine gets a copy of the disk."""
        if self._root.exists():
            shutil.copytree(self._root, other._root)

    def _folder(self, key: tuple[str, int]) -> Path:
        return self._root / f"{key[0]}@{key[1]}"

    def _printed(self, rank: RankFiles, name: str) -> Printed:
        source = (rank.job_id, rank.attempt, rank.rank, int(CHANNELS[name]))
        known = self._truth.printed.get(source)
        if known is None:
            known = self._truth.printed[source] = Printed()
        known.grants[rank.lease_id, rank.epoch] = None
        known.is_cut = known.is_cut or self.is_past
        return known

    def _line(self, rank: RankFiles, name: str, number: int) -> str:
        pad = "x" * self._rng.choice(PADS)
        return f"{rank.job_id} {rank.attempt} {rank.rank} {name} {number} {pad}"

    def _append(self, rank: RankFiles, name: str, data: bytes) -> None:
        self._printed(rank, name).data += data
        descriptor = os.open(f"{rank.path}/{name}", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
        self.changed(rank.path)


def _metrics(step: int) -> str:
    return f'{{"event":"metrics","step":{step},"values":{{"loss":{step}.5}}}}\n'
