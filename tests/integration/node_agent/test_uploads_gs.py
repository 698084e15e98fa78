"""Transfers to and from gs://, by the process that does them, and a server of that interface."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from node_agent.spool.proof import manifest_path, prove
from node_agent.uploads.mover import Mover
from node_agent.uploads.moves import CHUNK_BYTES
from node_agent.uploads.orders import Download, Failed, Remove, Upload
from tests.support.ports import Port
from tests.support.waiting import until

TARGET = "gs://mind/acme/checkpoints/step-5"


class Place:
    """A bucket `mind`, and a checkpoint that was proven."""

    def __init__(self, root: Path, url: str) -> None:
        self.url, self.root = url, root
        self.source = root / "step-5"
        (self.source / "sub").mkdir(parents=True)
        (self.source / "model.bin").write_bytes(os.urandom(CHUNK_BYTES + 5))
        (self.source / "sub" / "state.json").write_text("{}")
        (self.source / "empty").touch()
        self.digest = prove(self.source, cancelled=threading.Event()).digest

    def upload(self, target: str = TARGET) -> Upload:
        journal = self.root / "journal"
        return Upload(str(self.source), target, str(manifest_path(self.source)), str(journal))

    def names(self) -> list[str]:
        answer = httpx.get(f"{self.url}/storage/v1/b/mind/o", trust_env=False).raise_for_status()
        return sorted(one["name"] for one in answer.json().get("items", []))


def serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/storage/v1/b/mind", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with Port() as port:
        url = f"http://127.0.0.1:{port.number}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        given = ("--host", "127.0.0.1", "--port", str(port.number), "--default-bucket", "mind")
        server = subprocess.Popen(
            [sys.executable, "-m", "gcp_storage_emulator", "start", "--in-memory", *given],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: serves(url), "the store is there")
            yield Place(tmp_path, url)
        finally:
            server.kill()
            server.wait()


async def test_what_goes_to_gs_comes_back_as_it_was_and_can_be_removed(
    place: Place, tmp_path: Path
) -> None:
    move = Mover()
    await move(place.upload())
    base = TARGET.removeprefix("gs://mind/")
    files = ["empty", "model.bin", "sub/state.json"]
    assert place.names() == [f"{base}.manifest.json"] + [f"{base}/{name}" for name in files]
    back = tmp_path / "back" / "step-5"
    await move(Download(TARGET, str(back), place.digest))
    for name in files:
        assert (back / name).read_bytes() == (place.source / name).read_bytes()
    await move(Remove(TARGET))
    assert not place.names()


async def test_a_bucket_that_is_not_there_is_told_without_what_the_library_said(
    place: Place,
) -> None:
    with pytest.raises(Failed, match=r"^there is no such bucket or object$"):
        await Mover()(place.upload("gs://none/acme/step-5"))
