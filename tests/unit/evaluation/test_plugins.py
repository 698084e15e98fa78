"""A package that adds a benchmark and a kind of model: known by name where it is installed, and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scaimind.evaluation.registry import BENCHMARKS, MODELS, find, names

CODE = """
class Echo:
    def score(self, prompt, text):
        return None
    def complete(self, prompt, *, max_new_tokens, temperature, seed):
        return prompt

def load(folder):
    return Echo()

def echoes(model, samples, parameters):
    told = [model.complete(one["prompt"], max_new_tokens=1, temperature=0, seed=1) for one in samples]
    return {"echoes": len(told) * float(parameters["worth"])}

def perplexity(model, samples, parameters):
    return {"perplexity": 0.0}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the package, as an installer leaves it."""
    folder = tmp_path / "site"
    info = folder / "echo_benchmark-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "echo_benchmark.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-benchmark\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[scaimind.benchmarks]\n"
        "echoes = echo_benchmark:echoes\n"
        "perplexity = echo_benchmark:perplexity\n"
        "[scaimind.models]\necho = echo_benchmark:load\n"
    )
    return folder


def test_what_a_package_adds_is_known_and_replaces_nothing(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = find(BENCHMARKS, "perplexity")
    monkeypatch.syspath_prepend(site)
    assert names(BENCHMARKS) == ["echoes", "exact_match", "perplexity", "token_accuracy"]
    assert names(MODELS) == ["echo", "tiny-lm"]
    assert find(BENCHMARKS, "echoes").__module__ == "echo_benchmark"
    assert find(BENCHMARKS, "perplexity") is own


def test_an_evaluation_runs_it_on_a_model_of_its_kind(site: Path, tmp_path: Path) -> None:
    model, config, output = tmp_path / "model", tmp_path / "config.json", tmp_path / "output"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "echo"}))
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "{word}"}}\n' for word in "abc"))
    asked = {"name": "echoes", "dataset": "prompts", "num_samples": 2, "parameters": {"worth": "2"}}
    framework = {"config": {"evaluation": json.dumps({"benchmarks": [asked]})}}
    config.write_text(json.dumps({"training_config": {"framework": framework}}))
    done = subprocess.run(
        [sys.executable, "-m", "scaimind.evaluation"],
        env={
            **os.environ,
            "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "MIND_JOB_ID": "job_1",
            "MIND_ATTEMPT": "1",
            "MIND_CONFIG": str(config),
            "MIND_DATA_0_PATH": str(model),
            "MIND_DATA_1_PATH": str(tmp_path / "prompts.jsonl"),
            "MIND_OUTPUT_DIR": str(output),
            "MIND_EVENTS": str(tmp_path / "events.jsonl"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((output / "results.json").read_text())
    assert result == {"name": "echoes", "scores": {"echoes": 4.0}, "num_samples": 2}
