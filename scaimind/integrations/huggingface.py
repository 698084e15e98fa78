"""Hugging Face Trainer: metrics, progress, checkpoints and requests to stop, by one callback.

    from scaimind.integrations import TrainerCallback

    Trainer(..., callbacks=[TrainerCallback()]).train(resume_from_checkpoint=run.resume_from)

Save below `run.checkpoint_dir` (`TrainingArguments(output_dir=run.checkpoint_dir)`) so that the
checkpoints outlive the node. Requests are read on each rank by itself: with several ranks they
may be seen one step apart, so let every rank have the signal before its step ends.
"""

import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from scaimind.job import Attempt, init
from scaimind.job.steps import REPORT_INTERVAL_S


class Arguments(Protocol):
    """What is used of `transformers.TrainingArguments`."""

    output_dir: str | None


class State(Protocol):
    """What is used of `transformers.TrainerState`."""

    global_step: int
    max_steps: int
    epoch: float | None
    is_world_process_zero: bool


class Control(Protocol):
    """What is used of `transformers.TrainerControl`."""

    should_save: bool
    should_training_stop: bool


class TrainerEvents:
    """The handlers, free of transformers; `trainer_callback` joins them with its base class."""

    def __init__(self, run: Attempt | None = None) -> None:
        super().__init__()
        self._run = run or init()
        self._first_step = 0
        self._started_s = time.monotonic()
        self._next_report_s = self._started_s

    def on_train_begin(self, _: Arguments, state: State, *__: object, **___: object) -> None:
        """Start the clock at the step that this attempt goes on from."""
        self._first_step = state.global_step
        self._started_s = self._next_report_s = time.monotonic()

    def on_log(
        self,
        _: Arguments,
        state: State,
        *__: object,
        logs: Mapping[str, Any] | None = None,
        **___: object,
    ) -> None:
        """Report what the Trainer logs, as far as it is numbers."""
        values = {k: v for k, v in (logs or {}).items() if hasattr(v, "__float__") and k != "epoch"}
        if values and state.is_world_process_zero:
            self._run.log(values, step=state.global_step, epoch=state.epoch)

    def on_step_end(self, _: Arguments, state: State, control: Control, **__: object) -> None:
        """Report progress about once a second and pass requests on to the Trainer."""
        if state.is_world_process_zero:
            self._report_progress(state)
        if self._run.should_checkpoint or self._run.should_stop:
            control.should_save = True
        if self._run.should_stop:
            control.should_training_stop = True

    def on_save(self, args: Arguments, state: State, *_: object, **__: object) -> None:
        """Announce the checkpoint that the Trainer has just written."""
        if state.is_world_process_zero and args.output_dir is not None:
            path = Path(args.output_dir, f"checkpoint-{state.global_step}")
            self._run.checkpoint_saved(path, step=state.global_step)

    def on_train_end(self, _: Arguments, state: State, *__: object, **___: object) -> None:
        """Say done, unless the training ended before its last step because it was asked to."""
        if not self._run.should_stop or state.global_step >= state.max_steps:
            self._run.done()

    def _report_progress(self, state: State) -> None:
        now_s = time.monotonic()
        if now_s < self._next_report_s or state.max_steps <= 0:
            return
        self._next_report_s = now_s + REPORT_INTERVAL_S
        fresh = max(1, state.global_step - self._first_step)
        left = max(0, state.max_steps - state.global_step)
        eta_s = (now_s - self._started_s) / fresh * left
        self._run.progress(state.global_step / state.max_steps, eta_s)


def trainer_callback() -> type[Any]:
    """The callback class for `Trainer(callbacks=[...])`; ImportError without transformers."""
    base = importlib.import_module("transformers").TrainerCallback
    return type("TrainerCallback", (TrainerEvents, base), {"__module__": __name__})
