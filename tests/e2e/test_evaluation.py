"""A model is trained, checked data is named, the model is evaluated: all of it over REST."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support import jobs
from tests.support.cluster import ROOT, Cluster

WITHIN_S = 240
SMALL = {"steps": "30", "batch_size": "8", "context": "32", "d_model": "32", "warmup_steps": "5"}
NAMES = ("perplexity", "token_accuracy", "exact_match")


def trained(cluster: Cluster) -> str:
    """A small language model of the example; the id of its job."""
    text = (ROOT / "examples" / "tiny_lm" / "job.json").read_text()
    job = json.loads(text.replace("${JOB_DIR}", str(ROOT / "examples" / "tiny_lm")))
    job["training_config"]["hyperparameters"] |= SMALL
    job["data_config"]["sources"][0]["path"] = str(ROOT / "docs")
    answer = cluster.rest.post("/jobs", json=job)
    assert answer.status_code == 201, answer.text
    job_id = str(answer.json()["data"]["job_id"])
    record = jobs.final(cluster.client, job_id, within_s=WITHIN_S)
    assert record.output_model_uri, record
    return job_id


def test_a_trained_model_is_evaluated_and_its_scores_are_in_the_record(
    cluster: Cluster, tmp_path: Path
) -> None:
    dataset = tmp_path / "test.jsonl"
    dataset.write_text('{"prompt": "the ", "completion": "job"}\n{"text": "A lease is"}\n')
    checked = cluster.rest.post("/data/validate", json={"sources": [{"path": str(dataset)}]})
    assert checked.status_code == 200, checked.text
    (source,) = checked.json()["data"]["results"]
    assert checked.json()["data"]["valid"]
    assert (source["num_samples"], source["size_bytes"]) == (2, dataset.stat().st_size)

    job_id = trained(cluster)
    benchmarks = [{"name": name, "dataset": str(dataset)} for name in NAMES]
    benchmarks[2]["num_samples"] = 1  # type: ignore[assignment]
    answer = cluster.rest.post("/evaluations", json={"job_id": job_id, "benchmarks": benchmarks})
    assert answer.status_code == 201, answer.text
    evaluation_id = answer.json()["data"]["evaluation_id"]
    end = jobs.final(cluster.client, evaluation_id, within_s=WITHIN_S)
    said = jobs.lines(cluster.client, evaluation_id)  # to the end: its scores have come as well
    assert not end.HasField("error"), said
    record = cluster.rest.get(f"/evaluations/{evaluation_id}").json()["data"]
    assert (record["status"], record["job_id"]) == ("COMPLETED", job_id)
    perplexity, accuracy, match = record["results"]
    assert 1 < perplexity["scores"]["perplexity"] < 256
    assert 0 <= accuracy["scores"]["token_accuracy"] <= 1
    assert match["scores"]["exact_match"] in (0, 1)
    assert [one["num_samples"] for one in record["results"]] == [2, 2, 1]
    listed = cluster.rest.get("/evaluations").json()["data"]["jobs"]
    assert evaluation_id in [one["job_id"] for one in listed]
    cache = cluster.rest.get("/data/cache").json()["data"]
    assert len(cache["nodes"]) == cluster.nodes


def test_the_command_line_validates_data_evaluates_and_shows_caches(
    cluster: Cluster, tmp_path: Path
) -> None:
    dataset = tmp_path / "test.jsonl"
    dataset.write_text('{"prompt": "the ", "completion": "job"}\n')
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{\n")
    assert "valid" in command(cluster, "data", "validate", str(dataset))
    said = command(cluster, "data", "validate", str(dataset), str(bad), status=1)
    assert "line 1 is not JSON" in said
    assert "0 entries" in command(cluster, "cache")
    job_id = trained(cluster)
    words = ["--benchmark", "perplexity", "--dataset", str(dataset), "--samples", "1"]
    said = command(cluster, "evaluate", job_id, *words, "-o", "json")
    evaluation_id = json.loads(said)["evaluation_id"]
    command(cluster, "wait", evaluation_id)
    command(cluster, "logs", "-f", evaluation_id)  # to the end: its scores have come as well
    said = command(cluster, "evaluations", evaluation_id)
    assert "perplexity=" in said
    assert "over 1 samples" in said
    assert evaluation_id in command(cluster, "evaluations")
    said = command(cluster, "evaluate", job_id, "--benchmark", "mmlu", status=2)
    assert "exact_match, perplexity, token_accuracy" in said


def command(cluster: Cluster, *words: str, status: int = 0) -> str:
    """What a verb prints, on both of its streams."""
    done = subprocess.run(
        [sys.executable, "-m", "scaimind.cli", *words, "--server", cluster.grpc],
        env=os.environ | {"MIND_API_KEY": cluster.key, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout
