"""The example of a host, started as its text says: a process with users of its own before the module."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from examples.host_app.app import PLACE
from tests.support import jobs
from tests.support.cluster import ROOT, Cluster
from tests.support.ports import Port
from tests.support.sse import SseReader
from tests.support.waiting import until

STOP_S = 60.0


@contextmanager
def hosting(cluster: Cluster, folder: Path) -> Iterator[str]:
    """The host's address, while it runs."""
    environment = {
        **os.environ,
        "MIND_COORDINATOR": cluster.grpc,
        "MIND_API_SECRET_FILE": str(cluster.data_dir / "gateway.secret"),
    }
    with Port() as port, (folder / "host.log").open("w+") as said:
        words = ["--factory", "examples.host_app.app:create_host", "--port", str(port.number)]
        host = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", *words],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        base = f"http://127.0.0.1:{port.number}"

        def answers() -> bool:
            assert host.poll() is None, (folder / "host.log").read_text()
            try:
                return httpx.get(f"{base}/me", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(answers, "the host answers")
            yield base
        finally:
            host.terminate()
            host.wait(STOP_S)


def user(base: str, session: str) -> httpx.Client:
    """A browser of the host's user."""
    cookies = {"session": session} if session else {}
    return httpx.Client(base_url=f"{base}{PLACE}", cookies=cookies, timeout=30, trust_env=False)


def test_the_hosts_users_run_jobs_in_their_tenants_with_what_the_host_lets_them_do(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(tmp_path, "hello.py", "print('hello')\n")
    with (
        hosting(cluster, tmp_path) as base,
        user(base, "ann-session") as ann,
        user(base, "bob-session") as bob,
        user(base, "eve-session") as eve,
        user(base, "") as nobody,
    ):
        assert ann.get(f"{base}/me").json() == {"user": "ann"}
        submitted = ann.post("/jobs", json=jobs.body(program))
        assert submitted.status_code == 201, submitted.text
        job_id = submitted.json()["data"]["job_id"]
        events = list(SseReader(bob, f"/jobs/{job_id}/logs", {"tail": -1}).events())
        assert [event.data.get("message") for event in events] == ["hello", None]
        record = bob.get(f"/jobs/{job_id}").json()["data"]
        assert (record["tenant_id"], record["user_id"]) == ("acme", "ann")
        assert record["status"] == "COMPLETED"
        assert bob.post(f"/jobs/{job_id}/cancel").status_code == 403
        assert eve.get(f"/jobs/{job_id}").status_code == 404
        assert nobody.get(f"/jobs/{job_id}").status_code == 401
        key = {"authorization": f"Bearer {cluster.key}"}
        assert nobody.get(f"/jobs/{job_id}", headers=key).status_code == 401
        assert ann.get("/metrics").json()["error"]["code"] == "NOT_FOUND"
