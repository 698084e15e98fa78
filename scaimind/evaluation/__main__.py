"""`python -m scaimind.evaluation`: what an evaluation runs, as a job that the coordinator made.

`training_config.framework.config["evaluation"]` holds what was asked for, as JSON. Data source 0 is the
model; then come the data sets of those benchmarks that name one, in order. The scores of benchmark n
(from 1) are the metrics at step n, with `num_samples`; that is where the coordinator reads them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one device of type CPU is one core

import scaimind
from scaimind.evaluation import models
from scaimind.evaluation.registry import BENCHMARKS, Benchmark, Model, Sample, find

SAMPLES = "num_samples"
LINE_BYTES_MAX = 16 << 20


class Stopped(Exception):
    """The attempt was asked to stop."""


class Samples:
    """Samples of a jsonl file (none without a file), counted as they are read."""

    def __init__(self, path: Path | None, most: int, attempt: scaimind.Attempt) -> None:
        self.count = 0
        self._path, self._most, self._attempt = path, most, attempt

    def __iter__(self) -> Iterator[Sample]:
        if self._path is None:
            return
        with self._path.open("rb") as file:
            for number in range(1, sys.maxsize):
                line = file.readline(LINE_BYTES_MAX + 1)
                if not line or (self._most and self.count >= self._most):
                    return
                if self._attempt.should_stop:
                    raise Stopped
                if line.strip():
                    yield self._sample(line, number)

    def _sample(self, line: bytes, number: int) -> Sample:
        if len(line) > LINE_BYTES_MAX:
            raise ValueError(f"line {number} of {self._path} is too long")
        try:
            sample: object = json.loads(line)
        except (ValueError, RecursionError):
            sample = None
        if not isinstance(sample, dict):
            raise ValueError(f"line {number} of {self._path} is not a JSON object")
        self.count += 1
        return sample


def main() -> int:
    """Evaluates; the process's exit code."""
    run = scaimind.init()
    if not run.is_main:
        run.done()
        return 0
    try:
        asked = json.loads(run.config["training_config"]["framework"]["config"]["evaluation"])
        evaluate(run, asked["benchmarks"])
    except Stopped:
        print("stopped as asked")
        return 0
    except KeyError as error:
        print(f"error: {error} is missing: this runs as an evaluation only", file=sys.stderr)
        return 2
    except (ValueError, OSError, LookupError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    run.done()
    return 0


def evaluate(run: scaimind.Attempt, benchmarks: Sequence[Mapping[str, Any]]) -> None:
    """Runs each benchmark and reports its scores. ValueError, OSError, LookupError where one cannot."""
    place, *datasets = run.data_paths
    model = models.load(place)
    print(f"model: {place}")
    waiting = iter(datasets)
    results = []
    for step, asked in enumerate(benchmarks, 1):
        name, path = str(asked["name"]), next(waiting) if asked.get("dataset") else None
        samples = Samples(path, int(asked.get(SAMPLES) or 0), run)
        scores = measure(model, name, samples, parameters=asked.get("parameters") or {})
        run.log({**scores, SAMPLES: samples.count}, step=step)
        run.progress(step / len(benchmarks))
        results.append({"name": name, "scores": dict(scores), SAMPLES: samples.count})
        told = " ".join(f"{key}={value:.6g}" for key, value in scores.items())
        print(f"{name}: {told} over {samples.count} samples", flush=True)
    (run.output_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def measure(
    model: Model, name: str, samples: Samples, *, parameters: Mapping[str, str]
) -> Mapping[str, float]:
    """The scores of one benchmark. ValueError names it where it cannot be done."""
    benchmark: Benchmark = find(BENCHMARKS, name)
    try:
        return benchmark(model, samples, parameters)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
