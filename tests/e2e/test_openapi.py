"""The running module is held to its own description by a program that knows nothing else of it.

schemathesis makes requests that fit the description and ones that do not, for every operation, and judges
each answer: no 5xx, no status, header, type or shape that is not described, nothing refused as
unfit that fits, nothing taken that does not fit, nothing for callers without a credential.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from scaimind.v1 import job_pb2
from tests.e2e.conftest import MakeCluster
from tests.support import jobs
from tests.support.cluster import MODULE, Cluster

EXAMPLES = 8
LIMIT_S = 300.0

# 400 is the coordinator's word on what no schema can say: tokens of other lists, jobs that fit no node.
# A request that fits the schema is never told that it does not (422). A text may be so long that its address is
# (414). What does not fit in one job of a batch is told at its place of an answer that is good (200).
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 429]

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 414, 415, 422, 428, 429]

[dictionaries]
jobs = {{ values = {jobs} }}
ended = {{ values = {ended} }}
nodes = {{ values = {nodes} }}

[parameters]
"path.job_id" = {{ dictionary = "jobs", probability = 0.7 }}
"path.node_id" = {{ dictionary = "nodes", probability = 0.5 }}

[[operations]]
include-path-regex = "/(logs|stream)$"
parameters = {{ "path.job_id" = {{ dictionary = "ended", probability = 0.7 }} }}

[[operations]]
include-path-regex = "/jobs/batch$"
checks = {{ negative_data_rejection = {{ expected-statuses = [200, 400, 401, 403, 409, 415, 422, 429] }} }}
"""


def populated(cluster: Cluster, folder: Path) -> dict[str, str]:
    """Jobs in several statuses; the settings that name them."""
    program = jobs.script(folder, "talks.py", "print('one')\nprint('WARNING two')\n")

    def submitted(**scheduling: object) -> str:
        body = jobs.body(program, gpu_type="H100", scheduling=scheduling)
        return cluster.client.submit(body).job_id

    ended = submitted()
    assert jobs.final(cluster.client, ended).status == job_pb2.Job.COMPLETED
    waiting = [submitted(start_after="2100-01-01T00:00:00Z") for _ in range(2)]
    cluster.client.pause(waiting[0])
    nodes = [node.node_id for node in cluster.client.nodes()]
    values = {"jobs": [ended, *waiting], "ended": [ended], "nodes": nodes}
    return {name: json.dumps(each) for name, each in values.items()}


def test_the_module_answers_as_it_is_described_and_never_with_5xx(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(devices="sim:8xH100")
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS.format(**populated(cluster, tmp_path)))
    words = ["-m", "schemathesis.cli", "--config-file", str(settings), "run"]
    words += [f"http://{cluster.http}{MODULE}/openapi.json"]
    words += ["--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1"]
    words += ["--header", f"Authorization: Bearer {cluster.key}", "--request-timeout", "20"]
    words += ["--no-color", "--no-shrink", "--continue-on-failure"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "default"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{cluster.story()}"
    assert re.search(r"(\d{2}) selected / \1 total", done.stdout), done.stdout
