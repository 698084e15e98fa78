"""The attempt that this process is a rank of: the object that `scaimind.init()` returns."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Self, SupportsFloat, SupportsIndex

from scaimind.job import environment, folders
from scaimind.job.environment import Environment
from scaimind.job.events import EventFile, as_float, as_number, as_step
from scaimind.job.signals import Requests
from scaimind.job.steps import Steps

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Attempt:
    """One rank's link to its job: reports go out, requests to stop or to save come in.

    Every rank may report; in distributed training usually the main rank alone does. All methods
    may be called from any thread. As a context manager it says `done` at a clean end, unless the
    attempt was asked to stop.

    Facts, all fixed at the start:
        job_id, lineage_id: "" outside MindCoordinator; the lineage is a job and its retries.
        number: which try of the job this is, from 1; 0 outside MindCoordinator.
        config: the five configs by name (`training_config` ...), as submitted.
        hyperparameters: `training_config.hyperparameters`, a map of strings.
        data_paths, mount_paths: one path for each data source and each storage mount.
        output_dir: where the finished model belongs; exists.
        checkpoint_dir: where `checkpoint` publishes.
        resume_from: the checkpoint to go on from, or None.
        rank, local_rank, world_size, is_main: this rank's place in the gang.
    """

    def __init__(self, facts: Environment) -> None:
        """Open the events file and take over SIGTERM and SIGUSR1 (in the main thread only)."""
        self.job_id = facts.job_id
        self.lineage_id = facts.lineage_id
        self.number = facts.attempt
        self.config = facts.config
        self.hyperparameters = facts.hyperparameters
        self.data_paths = facts.data_paths
        self.mount_paths = facts.mount_paths
        self.output_dir = facts.output_dir
        self.checkpoint_dir = facts.checkpoint_dir
        self.resume_from = facts.resume_from
        self.rank = facts.rank
        self.local_rank = facts.local_rank
        self.world_size = facts.world_size
        self.is_main = facts.rank == 0
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self._draft_owner = f"{facts.job_id or f'pid{os.getpid()}'}-{facts.attempt}"
        self._said_done = False
        self._events = EventFile(facts.events_path)
        self._requests = Requests()
        self._requests.install()

    @property
    def should_stop(self) -> bool:
        """True once the attempt was asked to stop: save a checkpoint, then leave soon."""
        return self._requests.stop

    @property
    def should_checkpoint(self) -> bool:
        """True while a checkpoint is asked for that has not been saved yet."""
        return self._requests.saves_asked > self._requests.saves_served

    def log(
        self,
        values: Mapping[str, SupportsFloat],
        *,
        step: SupportsIndex,
        epoch: SupportsFloat | None = None,
    ) -> None:
        """Report metrics of one step.

        Values are numbers: ints, floats, NaN, infinities, numpy scalars, tensors of one element.
        TypeError names the one that is not; ValueError where all of them pass 64 KiB.
        """
        event: dict[str, object] = {
            "event": "metrics",
            "step": as_step(step),
            "values": {str(name): as_number(f"{name!r}", value) for name, value in values.items()},
        }
        if epoch is not None:
            event["epoch"] = _finite("epoch", epoch)
        self._events.write(event)

    def progress(self, fraction: SupportsFloat, eta_seconds: SupportsFloat | None = None) -> None:
        """Report how much is done (0 ... 1, clamped) and the seconds left where known."""
        event: dict[str, object] = {
            "event": "progress",
            "fraction": min(1.0, max(0.0, _finite("fraction", fraction))),
        }
        if eta_seconds is not None:
            event["eta_seconds"] = max(0.0, _finite("eta_seconds", eta_seconds))
        self._events.write(event)

    def track(self, total_steps: int, *, start: int = 0) -> Steps:
        """Iterate the steps after `start` up to `total_steps`, reporting progress and ETA."""
        return Steps(self.progress, total_steps, start=start)

    def message(self, text: str, *, level: str = "INFO") -> None:
        """Put a line into the job's log at a level of its own (one of LEVELS)."""
        if level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
        self._events.write({"event": "log", "level": level, "message": str(text)})

    @contextmanager
    def checkpoint(self, step: SupportsIndex) -> Iterator[Path]:
        """Save a checkpoint: yields an empty folder to write files and folders into.

        At the end of the block all of it is flushed to disk and appears at once in
        `checkpoint_dir`; an exception in the block leaves nothing. Call it on one rank. Sharded
        checkpoints of several ranks: write them yourself, then call `checkpoint_saved`.
        """
        number, asked = as_step(step), self._requests.saves_asked
        draft = folders.new_draft(self.checkpoint_dir, self._draft_owner)
        try:
            if self.job_id and self.is_main:  # by hand, other drafts may be of a living process
                folders.discard_leftovers(self.checkpoint_dir, self.job_id, own=self._draft_owner)
            yield draft
            path = folders.publish(draft, f"step-{number:08d}")
        except BaseException:
            folders.discard(draft)
            raise
        self._announce(path, number, asked=asked)

    def checkpoint_saved(self, path: str | os.PathLike[str], *, step: SupportsIndex) -> None:
        """Announce a checkpoint that other code has written, complete, at `path`."""
        self._announce(Path(path).absolute(), as_step(step), asked=self._requests.saves_asked)

    def done(self) -> None:
        """Say that the job's work is complete; what counts when a stop was asked for as well."""
        if not self._said_done:
            self._said_done = True
            self._events.write({"event": "done"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None and not self.should_stop:
            self.done()

    def _announce(self, path: Path, step: int, *, asked: int) -> None:
        self._requests.saves_served = max(self._requests.saves_served, asked)
        self._events.write({"event": "checkpoint", "step": step, "path": str(path)})


def _finite(name: str, value: SupportsFloat) -> float:
    number = as_float(name, value)
    if not isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


_lock = threading.Lock()
_current: Attempt | None = None


def init() -> Attempt:
    """This process's attempt, made on the first call from the environment variables.

    Further calls return the same object, so that libraries and the script share its requests.
    Call it early and in the main thread: requests that came before cannot be seen.
    ValueError names a variable that makes no sense.
    """
    global _current  # one process is one rank: there is exactly one attempt to speak for
    with _lock:
        if _current is None:
            _current = Attempt(environment.read(os.environ))
        return _current
