"""Checkpoints and models in a store of objects: a training goes on where nothing of it ever was.

The store is moto's server: real HTTP, the real library, and none of our code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from scaimind import Client
from scaimind.v1 import job_pb2
from tests.support import jobs, processes
from tests.support.narrow import Narrow
from tests.support.several import START_S, Coordinator, Program
from tests.support.waiting import until

TRAINS = """
    import time
    from pathlib import Path
    import scaimind

    run = scaimind.init()
    start = int(Path(run.resume_from, "step").read_text()) if run.resume_from else 0
    print("from", start, flush=True)
    for step in run.track(1_000_000, start=start):
        time.sleep(0.01)
        if run.should_stop:
            break
        if run.should_checkpoint or step == 3:
            with run.checkpoint(step) as folder:
                (folder / "step").write_text(str(step))
        if start:
            (run.output_dir / "model.bin").write_text("weights")
            run.done()
            break
    """

PARTS, PART_BYTES = 4, 1 << 20
SAVES = """
    import os, time
    import scaimind

    run = scaimind.init()
    for step in run.track(1_000_000):
        if step == 1:
            with run.checkpoint(step) as folder:
                for number in range(PARTS):
                    (folder / f"part-{number}").write_bytes(os.urandom(PART_BYTES))
        time.sleep(0.01)
        if run.should_stop:
            break
    """


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A new bucket `mind`, of which this process and those that it starts know by their environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    httpx.post(f"http://{host}:{port}/moto-api/reset", trust_env=False).raise_for_status()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "canary-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        files.mkdir("mind")
        yield files
    finally:
        server.stop()


class Home:
    """A coordinator and two agents that share no folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coordinator = Coordinator(folder, 0)
        self.agents = [self._agent(f"n{number}") for number in (1, 2)]

    def _agent(self, name: str) -> Program:
        return Program(
            self.folder,
            *(name, "node_agent", "--coordinator", self.coordinator.address, "--devices", "cpu"),
            *("--data-dir", str(self.folder / name), "--node-id", name),
            *("--join-token-file", str(self.coordinator.data_dir / "join.token")),
            *("--upload-roots", "s3://mind/{tenant}", "--hold-ms", "500"),
        )

    def start(self) -> Client:
        self.coordinator.start()
        until(self.coordinator.serves, self.coordinator.story, within_s=START_S)
        self.agents[0].start()
        key = (self.coordinator.data_dir / "admin.key").read_text().strip()
        return Client(self.coordinator.address, key)

    def close(self) -> None:
        for one in (*self.agents, self.coordinator):
            one.kill()
        with suppress(ProcessLookupError):
            processes.kill_all(processes.of_folder(self.folder))
        self.coordinator.port.close()

    def story(self) -> str:
        return "\n".join(one.story() for one in (self.coordinator, *self.agents))


@pytest.fixture
def home(tmp_path: Path, store: Any) -> Iterator[Home]:
    made = Home(tmp_path)
    try:
        yield made
    finally:
        made.close()


def is_removed(folder: Path) -> bool:
    """Removes a folder in which an agent may be cleaning up."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def manifest(store: Any, uri: str) -> dict[str, Any]:
    """What the manifest says that lies beside a URI, once every file was looked at."""
    listed: dict[str, Any] = json.loads(store.cat_file(f"{uri}.manifest.json"))
    for file in listed["files"]:
        content = store.cat_file(f"{uri}/{file['name']}")
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    return listed


def test_a_training_that_moves_goes_on_from_the_store_on_a_node_that_has_nothing_of_it(
    home: Home, store: Any, tmp_path: Path
) -> None:
    with home.start() as client:
        body = jobs.body(jobs.script(tmp_path, "trains.py", TRAINS))
        base = "s3://mind/local"
        body["output_config"] = {
            "checkpoint_uri": f"{base}/checkpoints",
            "output_uri": f"{base}/model",
            "keep_checkpoints": 1,
        }
        job_id = client.submit(body).job_id
        until(
            lambda: [one.step for one in client.get_job(job_id).checkpoints] == [3],
            lambda: f"its checkpoint is uploaded\n{home.story()}",
        )
        home.agents[1].start()
        until(lambda: len(list(client.nodes())) == 2, "the other node is there")
        client.drain("n1", strategy="CHECKPOINT_AND_MOVE")
        until(lambda: client.get_job(job_id).attempts_count == 2, "it moves")
        storage = tmp_path / "n1" / "storage"
        until(lambda: is_removed(storage), "nothing of it is where it began")
        done = jobs.final(client, job_id)
        assert done.status == job_pb2.Job.COMPLETED, home.story()
        assert list(done.attempt.node_ids) == ["n2"]
        (saved,) = done.checkpoints
        assert saved.step > 3
        log: list[str] = []

        def goes_on() -> bool:
            log[:] = jobs.lines(client, job_id, follow=False)
            return f"from {saved.step}" in log

        until(goes_on, lambda: f"it went on from the store\n{home.story()}")
        assert saved.uri.startswith(f"{base}/checkpoints/{job_id}/{saved.checkpoint_id}/step-")
        assert [file["name"] for file in manifest(store, saved.uri)["files"]] == ["step"]
        assert done.output_model_uri == f"{base}/model"
        assert [file["name"] for file in manifest(store, f"{base}/model")["files"]] == ["model.bin"]
        until(
            lambda: len(store.ls(f"mind/local/checkpoints/{job_id}")) == 1,
            lambda: f"the first one is removed\n{home.story()}",
        )
    assert "canary-secret" not in home.story() + "\n".join(log)


def test_an_upload_in_the_middle_of_which_its_agent_is_killed_is_taken_up_and_is_whole(
    home: Home, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").partition(":")
    with Narrow(host, int(port), most_bytes=PARTS * PART_BYTES // 2) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{way.address}")
        with home.start() as client:
            text = SAVES.replace("PARTS", str(PARTS)).replace("PART_BYTES", str(PART_BYTES))
            body = jobs.body(jobs.script(tmp_path, "saves.py", text))
            body["output_config"] = {"checkpoint_uri": "s3://mind/local/checkpoints"}
            job_id = client.submit(body).job_id
            until(way.stuck.is_set, lambda: f"half of it is uploaded\n{home.story()}")
            home.agents[0].kill()
            assert not store.glob("mind/local/checkpoints/**/*.manifest.json")
            assert not client.get_job(job_id).checkpoints
            way.open()
            home.agents[0].start()
            until(
                lambda: len(client.get_job(job_id).checkpoints) == 1,
                lambda: f"its checkpoint is uploaded\n{home.story()}",
            )
            (saved,) = client.get_job(job_id).checkpoints
            text = store.cat_file(f"{saved.uri}.manifest.json")
            assert saved.digest == f"sha256:{hashlib.sha256(text).hexdigest()}"
            listed = manifest(store, saved.uri)["files"]
            assert [one["name"] for one in listed] == [f"part-{n}" for n in range(PARTS)]
            assert client.get_job(job_id).attempts_count == 1
            client.cancel(job_id)
            jobs.final(client, job_id)
