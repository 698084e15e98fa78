"""What `make run` does, with few steps: a cluster, a language model that learns, what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support import processes
from tests.support.cluster import ROOT

WITHIN_S = 240
# The same script with another job file; everything else is as `make run` has it.
RUN = """
import asyncio, sys
from pathlib import Path
from examples import run
run.JOB = Path(sys.argv[1])
sys.exit(asyncio.run(run.main()))
"""


def test_make_run_ends_with_a_lower_loss_a_checkpoint_and_a_model(tmp_path: Path) -> None:
    text = (ROOT / "examples" / "tiny_lm" / "job.json").read_text()
    job = json.loads(text.replace("${JOB_DIR}", str(ROOT / "examples" / "tiny_lm")))
    job["training_config"]["hyperparameters"] |= {
        "steps": "60",
        "batch_size": "8",
        "context": "32",
        "d_model": "64",
        "learning_rate": "0.01",
        "warmup_steps": "5",
    }
    job["output_config"]["checkpoint_interval_steps"] = 30
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    data_dir = tmp_path / "data"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path)],
        cwd=ROOT,
        env=os.environ | {"MIND_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    facts = {word: rest.strip() for word, _, rest in map(_parts, done.stdout.splitlines())}
    assert "at the start" in facts["loss"]
    assert "checkpoint" in facts
    model = Path(facts["model"])
    assert model.exists()
    assert model.is_relative_to(data_dir)
    left = processes.left_of(data_dir)
    assert not left, processes.describe(left)


def _parts(line: str) -> tuple[str, str, str]:
    return line.partition(" ")
