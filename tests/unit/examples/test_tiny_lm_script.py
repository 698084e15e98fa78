"""The example's script as an agent starts it: a process, its environment, its signals."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.examples.conftest import EXAMPLE

FEW = {"steps": "20", "d_model": "32", "context": "16", "batch_size": "4", "sample_bytes": "20"}
ENDLESS = FEW | {"steps": "1000000", "log_every": "1"}


class Job:
    """One attempt of the example in folders of its own."""

    def __init__(
        self,
        folder: Path,
        text_folder: Path,
        hyperparameters: Mapping[str, str],
        *,
        checkpoint_interval_steps: int = 10,
    ) -> None:
        self.checkpoints = folder / "checkpoints"
        self.output = folder / "output"
        self._events = folder / "events.jsonl"
        folder.mkdir()
        config = {
            "training_config": {"hyperparameters": hyperparameters},
            "output_config": {"checkpoint_interval_steps": checkpoint_interval_steps},
        }
        (folder / "config.json").write_text(json.dumps(config))
        self.environ = {
            "PYTHONPATH": str(EXAMPLE.parents[1]),
            "PYTHONUNBUFFERED": "1",
            "MIND_JOB_ID": "job_1",
            "MIND_LINEAGE_ID": "job_1",
            "MIND_ATTEMPT": "1",
            "MIND_CONFIG": str(folder / "config.json"),
            "MIND_DATA_0_PATH": str(text_folder),
            "MIND_CHECKPOINT_DIR": str(self.checkpoints),
            "MIND_OUTPUT_DIR": str(self.output),
            "MIND_EVENTS": str(self._events),
            "RANK": "0",
            "WORLD_SIZE": "1",
            "LOCAL_RANK": "0",
        }

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(EXAMPLE / "train.py")],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self) -> tuple[int, str]:
        process = self.start()
        output, _ = process.communicate(timeout=150)
        return process.returncode, output

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = self._events.read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"the script ended without printing {word!r}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, str, Path]:
    """A job that was trained to its end, its output, and its text."""
    folder = tmp_path_factory.mktemp("finished")
    text_folder = folder / "text"
    text_folder.mkdir()
    for number in range(25):
        (text_folder / f"{number}.py").write_text(f"number_{number} = {number}\n" * 40)
    job = Job(folder / "job", text_folder, FEW)
    code, output = job.finish()
    assert code == 0, output
    return job, output, text_folder


def test_a_whole_training_reports_everything(finished: tuple[Job, str, Path]) -> None:
    job, output, _ = finished
    metrics = job.events("metrics")
    assert [event["step"] for event in metrics] == list(range(1, 21))
    assert set(metrics[0]["values"]) == {
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens_per_second",
    }
    assert "val_loss" in metrics[-1]["values"]
    assert metrics[-1]["values"]["loss"] < metrics[0]["values"]["loss"]
    assert job.events("progress")[-1]["fraction"] == 1.0
    assert [event["step"] for event in job.events("checkpoint")] == [10, 20]
    assert job.events("done") == [{"event": "done"}]
    assert "step    20/20  loss" in output


def test_a_whole_training_leaves_a_model_that_writes(finished: tuple[Job, str, Path]) -> None:
    job, _, _ = finished
    names = {path.name for path in job.output.iterdir()}
    assert names == {"config.json", "model.npz", "model.safetensors", "sample.txt"}
    sample = subprocess.run(
        [sys.executable, str(EXAMPLE / "sample.py"), str(job.output), "number", "--bytes", "5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sample.stdout.startswith("number")


def test_a_resumed_training_is_the_same_bit_for_bit(
    finished: tuple[Job, str, Path], tmp_path: Path
) -> None:
    straight, _, text_folder = finished
    resumed = Job(tmp_path / "resumed", text_folder, FEW)
    resumed.environ |= {
        "MIND_ATTEMPT": "2",
        "MIND_RESUME_FROM": str(straight.checkpoints / "step-00000010"),
    }
    code, output = resumed.finish()
    assert code == 0, output
    assert "resumed at step 10" in output
    losses = [
        [event["values"]["loss"] for event in job.events("metrics")] for job in (straight, resumed)
    ]
    assert losses[0][10:] == losses[1]
    ends = [job.checkpoints / "step-00000020" / "arrays.npz" for job in (straight, resumed)]
    with np.load(ends[0]) as expected, np.load(ends[1]) as actual:
        for name in ("params", "first", "second"):
            np.testing.assert_array_equal(expected[name], actual[name])


def test_sigterm_saves_and_leaves_without_done(text_folder: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", text_folder, ENDLESS)
    process = job.start()
    read_until(process, "step     3/")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=150)
    assert process.returncode == 0
    assert "stopped at step" in output
    last = job.events("checkpoint")[-1]
    assert last["step"] == job.events("metrics")[-1]["step"]
    assert Path(last["path"], "arrays.npz").is_file()
    assert job.events("done") == []
    assert not any(job.output.iterdir())


def test_sigusr1_saves_and_goes_on(text_folder: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", text_folder, ENDLESS, checkpoint_interval_steps=1_000_000)
    process = job.start()
    read_until(process, "step     1/")
    process.send_signal(signal.SIGUSR1)
    while not any(job.checkpoints.glob("step-*")):
        read_until(process, "step ")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=150)
    assert process.returncode == 0
    asked, last = job.events("checkpoint")
    assert asked["step"] < last["step"] == job.events("metrics")[-1]["step"]


@pytest.mark.parametrize(
    ("hyperparameters", "environ", "problem"),
    [
        ({"steps": "many"}, {}, "error: hyperparameter steps must be a whole number"),
        ({}, {"MIND_RESUME_FROM": "/nowhere/step-1"}, "error: checkpoint /nowhere/step-1 cannot"),
        ({}, {"MIND_DATA_0_PATH": "/nowhere/text"}, "error: /nowhere/text holds 0 bytes"),
    ],
)
def test_bad_input_ends_with_a_line_that_names_it(
    text_folder: Path,
    tmp_path: Path,
    hyperparameters: dict[str, str],
    *,
    environ: dict[str, str],
    problem: str,
) -> None:
    job = Job(tmp_path / "job", text_folder, FEW | hyperparameters)
    job.environ |= environ
    code, output = job.finish()
    assert code == 2
    assert problem in output
    assert "Traceback" not in output
    assert job.events("done") == []


def test_ranks_beyond_the_first_have_nothing_to_do(text_folder: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", text_folder, FEW)
    job.environ |= {"RANK": "1", "WORLD_SIZE": "2"}
    code, _ = job.finish()
    assert code == 0
    assert job.events("done") == [{"event": "done"}]
    assert job.events("metrics") == []
