"""The Trainer callback, against a stand-in for the base class that transformers has.

The stand-in has the names, arguments and objects of transformers' callbacks; the library itself
is met in the tests of the training recipes.
"""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scaimind import integrations
from scaimind.integrations.huggingface import TrainerEvents
from scaimind.job import Attempt
from tests.unit.job.conftest import Events


@dataclass
class Arguments:
    output_dir: str | None


@dataclass
class State:
    global_step: int = 0
    max_steps: int = 10
    epoch: float | None = 0.0
    is_world_process_zero: bool = True


@dataclass
class Control:
    should_save: bool = False
    should_training_stop: bool = False


class BaseCallback:
    """As transformers' own: every event has a method that does nothing."""

    def on_epoch_end(self, *_: Any, **__: Any) -> str:
        return "from the base"

    def on_log(self, *_: Any, **__: Any) -> None:
        raise AssertionError("the handler must come before the base's")


@pytest.fixture
def callback(run: Attempt) -> TrainerEvents:
    return TrainerEvents(run)


@pytest.fixture
def args(tmp_path: Path) -> Arguments:
    return Arguments(str(tmp_path))


def test_numbers_that_the_trainer_logs_become_metrics(
    callback: TrainerEvents, args: Arguments, events: Events
) -> None:
    logs = {"loss": 0.5, "epoch": 1.5, "note": "text"}
    callback.on_log(args, State(global_step=3, epoch=1.5), Control(), logs=logs)
    callback.on_log(args, State(global_step=3), Control(), logs=None)
    callback.on_log(args, State(is_world_process_zero=False), Control(), logs=logs)
    assert events() == [{"event": "metrics", "step": 3, "values": {"loss": 0.5}, "epoch": 1.5}]


def test_steps_become_progress_at_most_once_a_second(
    callback: TrainerEvents, args: Arguments, events: Events
) -> None:
    callback.on_train_begin(args, State(global_step=4), Control())
    for step in (5, 6):
        callback.on_step_end(args, State(global_step=step), Control())
    (event,) = events()
    assert (event["event"], event["fraction"]) == ("progress", 0.5)
    assert event["eta_seconds"] >= 0


def test_a_request_to_save_is_passed_on_until_the_trainer_has_saved(
    callback: TrainerEvents, args: Arguments, events: Events
) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)
    control = Control()
    callback.on_step_end(args, State(global_step=7), control)
    assert control == Control(should_save=True, should_training_stop=False)
    callback.on_save(args, State(global_step=7), control)
    path = str(Path(args.output_dir or "", "checkpoint-7"))
    assert events()[-1] == {"event": "checkpoint", "step": 7, "path": path}
    again = Control()
    callback.on_step_end(args, State(global_step=8), again)
    assert again == Control()


def test_a_request_to_stop_saves_stops_and_is_not_done(
    callback: TrainerEvents, args: Arguments, events: Events
) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    control = Control()
    callback.on_step_end(args, State(global_step=7, max_steps=-1), control)
    assert control == Control(should_save=True, should_training_stop=True)
    callback.on_train_end(args, State(global_step=7), control)
    assert events() == []


def test_the_end_of_a_whole_training_is_done(
    callback: TrainerEvents, args: Arguments, events: Events
) -> None:
    callback.on_train_end(args, State(global_step=10), Control())
    assert events() == [{"event": "done"}]


def test_the_callback_class_joins_the_handlers_with_the_base_class(
    run: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers: Any = ModuleType("transformers")
    transformers.TrainerCallback = BaseCallback
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    made = integrations.TrainerCallback(run)
    assert isinstance(made, BaseCallback)
    assert made.on_epoch_end() == "from the base"
    made.on_log(Arguments(None), State(), Control(), logs={})


def test_without_transformers_only_the_use_of_the_callback_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="transformers"):
        integrations.TrainerCallback  # noqa: B018
