"""What a job names elsewhere is brought to its node before it starts: by the real agent, with the token of
whoever submitted it, once for all that want it, and the token is nowhere else."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
from google.protobuf import json_format

from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1.mind_coordinator_pb2_grpc import MindCoordinatorStub
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.files import Answer, serving
from tests.support.waiting import until
from tests.support.written import written
from tests.unit.node_agent.cache.test_unpack import zipped

CANARY = "minted-canary-of-a-fetch-3ac0"
LINES = b'{"text": "one"}\n' * 100_000
LARGE = LINES * 8  # enough to tell how fast it came
PROGRAM = b"""
import os, words
data, mounted = os.environ["MIND_DATA_0_PATH"], os.environ["STORAGE_MOUNT_0_PATH"]
print(words.HELLO, os.path.basename(data), os.path.getsize(data), open(mounted).read())
"""


def submitted(cluster: Cluster, url: str, *, name: str, token: str = CANARY) -> str:
    body = {
        **jobs.body("pkg/train.py", name=name),
        "data_config": {
            "sources": [{"path": "scaidrive://acme/train.jsonl"}],
            "storage_mounts": [{"source_uri": f"{url}/vocabulary.txt", "read_only": True}],
        },
    }
    request = api.SubmitJobRequest()
    json_format.ParseDict(body, request)
    request.training_config.framework.source_uri = f"{url}/code.zip"
    secret = (cluster.data_dir / "gateway.secret").read_text().strip()
    caller = {"x-api-secret": secret, "x-tenant-id": "local", "x-user-id": "ann"}
    rights = {"x-permissions": "scaimind:manage", "x-scaidrive-token": token}
    with grpc.insecure_channel(cluster.grpc) as channel:
        answer = MindCoordinatorStub(channel).SubmitJob(
            request, metadata=tuple({**caller, **rights}.items()), timeout=30
        )
    return answer.job_id


def test_what_a_job_names_elsewhere_is_there_when_it_starts(tmp_path: Path) -> None:
    gate = threading.Event()
    code = zipped(("pkg/train.py", PROGRAM), ("words.py", b"HELLO = 'hello'\n"))
    answers = {
        "/drive/acme/train.jsonl": Answer(LINES, token=CANARY, cut_bytes=700_000, hold=gate),
        "/vocabulary.txt": Answer(b"of words"),
        "/code.zip": Answer(code),
    }
    with serving(answers) as server:
        settings = {
            "MIND_DATA_SCAIDRIVE_URL": f"{server.url}/drive",
            "MIND_DATA_NETWORKS": "127.0.0.1/32",
            "MIND_LOG_LEVEL": "DEBUG",
        }
        with Cluster(tmp_path / "data", settings=settings) as cluster:
            job_id = submitted(cluster, server.url, name="first")
            until(
                lambda: (
                    cluster.client.get_job(job_id).status == job_pb2.Job.PREPARING
                    and 10 < cluster.client.get_job(job_id).progress < 100
                ),
                lambda: f"it is preparing, and tells how far it is\n{cluster.story()}",
            )
            gate.set()
            job = jobs.final(cluster.client, job_id)
            said = jobs.lines(cluster.client, job_id)
            assert job.status == job_pb2.Job.COMPLETED, (job.error, said)
            assert said == [f"hello train.jsonl {len(LINES)} of words"]
            asked = len(server.asked)
            again = submitted(cluster, server.url, name="again")
            assert jobs.final(cluster.client, again).status == job_pb2.Job.COMPLETED
            assert len(server.asked) == asked + 3  # one question for each, and no fetch
            refused = jobs.final(
                cluster.client, submitted(cluster, server.url, name="refused", token="other")
            )
            assert refused.status == job_pb2.Job.FAILED
            assert refused.error.category == job_pb2.JobError.STORAGE
            assert "access is denied there" in refused.error.message
            _listed(cluster, server.url)
            assert not [path for path, read in written(tmp_path) if CANARY.encode() in read]


def _listed(cluster: Cluster, url: str) -> None:
    """What the cache holds is listed, to an operator all of it."""
    uris = {"scaidrive://acme/train.jsonl", f"{url}/vocabulary.txt", f"{url}/code.zip"}

    def listed() -> bool:
        (node,) = cluster.rest.get("/data/cache").json()["data"]["nodes"]
        return {one["uri"] for one in node["entries"]} == uris and node["used_bytes"] > len(LINES)

    until(listed, "the cache is listed")


def test_what_a_job_names_that_waits_for_devices_of_a_node_is_there_before_it_starts(
    tmp_path: Path,
) -> None:
    holder = jobs.script(tmp_path, "holder", "#!/bin/sh\nuntil [ -e go ]; do sleep 0.05; done\n")
    reader = jobs.script(tmp_path, "reader", '#!/bin/sh\nwc -c <"$MIND_DATA_0_PATH"\n')
    with serving({"/train.jsonl": Answer(LARGE)}) as server:
        settings = {"MIND_DATA_NETWORKS": "127.0.0.1/32"}
        with Cluster(tmp_path / "data", settings=settings, devices="sim:2xH100") as cluster:
            held = [
                cluster.client.submit(jobs.body(holder, gpu_type="H100")).job_id for _ in range(2)
            ]
            for job_id in held:
                jobs.reaches(cluster.client, job_id, "TRAINING")
            body = jobs.body(reader, gpu_count=2, gpu_type="H100")
            body["data_config"] = {"sources": [{"path": f"{server.url}/train.jsonl"}]}
            waiting = cluster.client.submit(body).job_id
            until(
                lambda: _pins(cluster) == [[waiting]],
                lambda: f"its data is here, and kept for it\n{cluster.story()}",
            )
            assert cluster.client.get_job(waiting).status == job_pb2.Job.QUEUED
            until(lambda: _fetch_bytes_per_s(cluster) > 0, "it is known how fast it came")
            for job_id in held:
                (cluster.data_dir / "storage" / "jobs" / job_id / "work" / "go").touch()
            job = jobs.final(cluster.client, waiting)
            assert job.status == job_pb2.Job.COMPLETED, job.error
            assert jobs.lines(cluster.client, waiting)[0].strip() == str(len(LARGE))
            assert len(server.asked) == 2  # fetched once, and looked at when it started


def _fetch_bytes_per_s(cluster: Cluster) -> int:
    (node,) = cluster.rest.get("/cluster/nodes").json()["data"]["nodes"]
    return int(node["cache"]["fetch_bytes_per_s"])


def _pins(cluster: Cluster) -> list[list[str]]:
    (node,) = cluster.rest.get("/data/cache").json()["data"]["nodes"]
    return [one["pinned_by"] for one in node["entries"]]
