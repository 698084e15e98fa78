"""The coordinator is killed: reads come from copies, marked; everything else is a friendly 503."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scaimind import Client
from tests.support import jobs
from tests.support.cluster import MODULE
from tests.support.ports import Port
from tests.support.several import START_S, Coordinator, Program
from tests.support.waiting import until


class Pair:
    """A coordinator and a gateway, each a process of its own that nobody starts again."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = Coordinator(folder, 0)
        self.port, data_dir = Port(), self.coordinator.data_dir
        self.gateway = Program(
            folder,
            *("gateway", "gateway", "--http", str(self.port), "--no-rate-limits"),
            *("--coordinator", self.coordinator.address, "--timeout-s", "5"),
            *("--api-secret-file", str(data_dir / "gateway.secret")),
            *("--cache-path", str(folder / "copies.db")),
        )

    def start(self) -> None:
        """The coordinator, and then the gateway."""
        self.coordinator.start()
        until(self.coordinator.serves, self.coordinator.story, within_s=START_S)
        self.gateway.start()
        until(self._is_ready, self.gateway.story, within_s=START_S)

    def close(self) -> None:
        for one in (self.gateway, self.coordinator):
            one.kill()
        self.port.close()
        self.coordinator.port.close()

    @property
    def key(self) -> str:
        return (self.coordinator.data_dir / "admin.key").read_text().strip()

    def rest(self, key: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://{self.port}{MODULE}",
            headers={"authorization": f"Bearer {key}"},
            timeout=30.0,
            trust_env=False,
        )

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://{self.port}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


def stale(answer: httpx.Response) -> bool:
    """Whether it is a copy; and then it says so everywhere, with its age."""
    meta = answer.json()["meta"]
    marks = [meta.get("stale", False), "x-scaimind-stale" in answer.headers]
    marks.append(answer.headers.get("warning", "").startswith("110 "))
    marks.append(0 <= meta.get("stale_age_seconds", -1) <= 600)
    assert answer.status_code == 200, answer.text
    assert len(set(marks)) == 1, (meta, answer.headers)
    return bool(marks[0])


def test_while_the_coordinator_is_away_copies_are_read_and_all_else_is_503(pair: Pair) -> None:
    body = jobs.body("/bin/true", name="first", gpu_type="")
    with Client(pair.coordinator.address, pair.key) as client, pair.rest(pair.key) as rest:
        made = client.create_key("other", permissions=["VIEW"])
        job_id, other_id = (client.submit(body | {"name": name}).job_id for name in "ab")
        unseen = client.submit(body | {"name": "unseen"}).job_id
        before = rest.get("/jobs", params={"name_prefix": "a"})
        assert not stale(before)
        assert not stale(rest.get(f"/jobs/{other_id}"))
        with pair.rest(made.key) as stranger:
            assert stranger.get("/jobs").json()["data"]["jobs"] == []
            pair.coordinator.kill()
            path = f"/jobs/{other_id}"
            until(lambda: rest.get(path).status_code == 200, "the copy is kept")
            assert stale(rest.get(path))
            assert stranger.get(f"/jobs/{job_id}").status_code == 503
            assert stranger.get("/jobs").status_code == 503
        listed = rest.get("/jobs", params={"order_by": "name desc"})
        assert stale(listed)
        assert [job["name"] for job in listed.json()["data"]["jobs"]] == ["b", "a"]
        again = rest.get("/jobs", params={"name_prefix": "a"})
        assert stale(again)
        assert again.json()["data"]["jobs"] == before.json()["data"]["jobs"]
        for answer in (
            rest.get(f"/jobs/{unseen}"),
            rest.get("/jobs", params={"page_token": "of-the-coordinator"}),
            rest.get("/cluster"),
            rest.get("/queue"),
            rest.get(f"/jobs/{job_id}/logs"),
            rest.post("/jobs", json=body),
            rest.post(f"/jobs/{job_id}/cancel"),
        ):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (503, "COORDINATOR_UNAVAILABLE")
            assert int(answer.headers["retry-after"]) == error["retry_after"] >= 1
            assert str(pair.coordinator.port.number) not in answer.text
        pair.coordinator.start()
        until(lambda: not stale(rest.get("/jobs")), pair.coordinator.story, within_s=START_S)
        assert rest.get(f"/jobs/{unseen}").json()["data"]["name"] == "unseen"
