"""Transfers to and from a store: whole or not seen, resumed, and never believed unseen."""

from __future__ import annotations

import json
import os
import threading
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from node_agent.spool.proof import manifest_path, prove
from node_agent.uploads import moves
from node_agent.uploads.manifest import MANIFEST_SUFFIX, read_manifest
from node_agent.uploads.orders import Download, Failed, Remove, Upload


class Place:
    """A folder that was proven, and where it goes in a store in memory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "step-5"
        (self.source / "sub").mkdir(parents=True)
        (self.source / "model.bin").write_bytes(b"weights" * 1000)
        (self.source / "sub" / "state.json").write_text("{}")
        self.store: Any = fsspec.filesystem("memory")
        self.path = f"/{uuid.uuid4().hex}/job/ckpt/step-5"

    def prove(self) -> str:
        return prove(self.source, cancelled=threading.Event()).digest

    def upload(self, store: Any = None) -> None:
        source, manifest = str(self.source), str(manifest_path(self.source))
        order = Upload(source, "memory://", manifest, str(self.root / "journal" / "one"))
        moves.upload(order, store or self.store, self.path, beat=lambda: None)

    def download(self, digest: str, name: str = "back") -> Path:
        target = self.root / "other" / name
        order = Download("memory://", str(target), digest)
        moves.download(order, self.store, self.path, beat=lambda: None)
        return target

    def sent(self) -> list[str]:
        return sorted(
            name[len(self.path) :] for name in self.store.find(self.path.rpartition("/")[0])
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Breaks:
    """A store that opens so many files for writing, and then no more."""

    def __init__(self, store: Any, opens: int) -> None:
        self._store, self._left = store, opens
        self.opened: list[str] = []

    def open(self, path: str, mode: str, **options: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ConnectionError("at 10.0.0.1 with secret")
        self.opened.append(path)
        return self._store.open(path, mode, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_what_is_uploaded_comes_back_on_another_node_as_it_was(place: Place) -> None:
    (place.source / "latest").symlink_to("sub/state.json")
    digest = place.prove()
    place.upload()
    assert place.sent() == [MANIFEST_SUFFIX, "/model.bin", "/sub/state.json"]
    back = place.download(digest)
    assert (back / "model.bin").read_bytes() == b"weights" * 1000
    assert os.readlink(back / "latest") == "sub/state.json"
    assert prove(back, cancelled=threading.Event()).digest == digest


def test_a_checkpoint_that_is_one_file_comes_back_as_one_file(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.source = tmp_path / "weights.bin"
    place.source.write_bytes(b"w")
    digest = place.prove()
    place.upload()
    assert place.download(digest).read_bytes() == b"w"


def test_the_manifest_comes_last_and_what_has_arrived_is_not_sent_again(place: Place) -> None:
    place.prove()
    broken = Breaks(place.store, opens=1)
    with pytest.raises(
        Failed, match=r"does not answer as it should \(ConnectionError\)$"
    ) as caught:
        place.upload(broken)
    assert not caught.value.lasting
    assert place.sent() == [broken.opened[0][len(place.path) :]]
    with (place.root / "journal" / "one").open("a") as journal:
        journal.write("torn")  # by a kill
    again = Breaks(place.store, opens=9)
    place.upload(again)
    assert len(again.opened) == 1
    assert {*broken.opened, *again.opened} == {
        f"{place.path}/{name}" for name in ("model.bin", "sub/state.json")
    }
    assert MANIFEST_SUFFIX in place.sent()


def test_what_got_lost_on_the_way_is_found_out_before_the_manifest_is_written(place: Place) -> None:
    place.prove()
    place.upload()
    place.store.rm(place.path + MANIFEST_SUFFIX)
    place.store.pipe_file(f"{place.path}/model.bin", b"short")
    with pytest.raises(Failed, match="1 of its files did not arrive whole"):
        place.upload()
    assert MANIFEST_SUFFIX not in place.sent()
    place.upload()  # all of it is sent again
    assert MANIFEST_SUFFIX in place.sent()


def test_what_changed_after_it_was_proven_is_not_uploaded(place: Place) -> None:
    place.prove()
    (place.source / "model.bin").write_bytes(b"heavier" * 1000)
    with pytest.raises(Failed, match="changed since") as caught:
        place.upload()
    assert caught.value.lasting
    assert MANIFEST_SUFFIX not in place.sent()


def test_an_upload_over_an_older_one_takes_the_older_manifest_away_first(place: Place) -> None:
    place.prove()
    place.upload()
    (place.source / "model.bin").write_bytes(b"new")
    place.prove()
    with pytest.raises(Failed):
        place.upload(Breaks(place.store, opens=0))
    assert MANIFEST_SUFFIX not in place.sent()


def test_a_download_goes_on_with_what_is_there_and_verifies_every_file(place: Place) -> None:
    digest = place.prove()
    place.upload()
    place.store.pipe_file(f"{place.path}/sub/state.json", b"[]")
    with pytest.raises(Failed, match="not what was uploaded"):
        place.download(digest)
    assert not (place.root / "other" / "back").exists()
    place.store.pipe_file(f"{place.path}/sub/state.json", b"{}")
    place.store = Breaks(place.store, opens=1)  # the other one is there
    assert (place.download(digest) / "model.bin").exists()


def test_a_download_that_is_whole_is_not_done_again_where_its_answer_was_lost(place: Place) -> None:
    digest = place.prove()
    place.upload()
    back = place.download(digest)
    assert place.download(digest) == back
    assert (back / "model.bin").exists()


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, ""])
def test_only_what_was_proven_is_believed(place: Place, digest: str) -> None:
    place.prove()
    place.upload()
    if digest:
        with pytest.raises(Failed, match="not the one that was proven"):
            place.download(digest)
        place.store.rm(place.path + MANIFEST_SUFFIX)
        with pytest.raises(Failed, match="not there, or not whole"):
            place.download(digest)
    else:  # nobody knows its digest: its own manifest has to hold, or there is none
        assert (place.download("") / "model.bin").exists()
        place.store.rm(place.path + MANIFEST_SUFFIX)
        assert (place.download("", "plain") / "sub" / "state.json").exists()


def test_what_is_removed_loses_its_manifest_first_and_may_be_gone(place: Place) -> None:
    place.prove()
    place.upload()
    for _ in range(2):
        moves.remove(Remove("memory://"), place.store, place.path, beat=lambda: None)
    assert place.sent() == []


@pytest.mark.parametrize(
    "files",
    [
        [{"name": "../x"}],
        [{"name": "/x"}],
        [{"name": "a/../x"}],
        [{"name": "."}],
        [{"name": ""}],
        [{"name": "a\0"}],
        [{"name": "a//b"}],
        [{"name": "a"}, {"name": "a"}],
        [{"name": "a", "link": "/etc"}],
        [{"name": "a", "link": "../x"}],
        [{"name": "a", "link": "b"}, {"name": "a/x"}],
        [],
    ],
)
def test_a_manifest_that_leads_elsewhere_is_none(files: list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"manifest|link"):
        read_manifest(json.dumps({"version": 1, "files": files}).encode())
