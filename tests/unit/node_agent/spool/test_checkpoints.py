"""Checkpoints are proven by reading them, kept, and retired with care."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.ranks import RankFiles
from node_agent.spool import proof
from node_agent.spool.checkpoints import MAX_WAITING, Checkpoints
from node_agent.spool.events import Saved
from node_agent.spool.proof import Unproven, manifest_path, prove


def rank_files(root: Path, *, keep: int = 3) -> RankFiles:
    path = root / "lease" / "rank-0"
    path.mkdir(parents=True, exist_ok=True)
    folder = root / "checkpoints"
    folder.mkdir(exist_ok=True)
    return RankFiles(path, "job-1", "lin-1", 1, "lease", 1, 0, folder, keep)


def save(files: RankFiles, name: str, *, content: str = "weights") -> Path:
    path = files.checkpoint_dir / name
    (path / "sub").mkdir(parents=True)
    (path / "model.bin").write_text(content)
    (path / "sub" / "state.json").write_text("{}")
    return path


class Notes:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, rank: int, text: str) -> None:
        self.texts.append(text)


async def settle(checkpoints: Checkpoints) -> list[str]:
    notes = Notes()
    while checkpoints.has_work:
        await checkpoints.settle(now_ms=lambda: 1_234, note=notes)
    return notes.texts


def report(checkpoints: Checkpoints, step: int, *, path: Path | str, end: int = 0) -> str | None:
    return checkpoints.report(Saved(step=step, path=str(path)), rank=0, end=end or step)


async def test_a_checkpoint_is_proven_with_sizes_digest_and_a_manifest_beside_it(
    tmp_path: Path,
) -> None:
    files = rank_files(tmp_path)
    checkpoints = Checkpoints(files)
    path = save(files, "step-5")
    assert report(checkpoints, 5, path=path) is None
    assert checkpoints.has_work
    assert await settle(checkpoints) == []
    (proven,) = checkpoints.proven()
    manifest = manifest_path(path).read_bytes()
    assert proven.digest == "sha256:" + hashlib.sha256(manifest).hexdigest()
    assert proven.checkpoint_id == f"ckpt_5_1_{proven.digest[7:15]}"
    assert (proven.step, proven.size_bytes, proven.created_at_ms) == (5, 9, 1_234)
    assert proven.uri == path.as_uri()
    assert json.loads(manifest)["files"] == [
        {"name": "model.bin", "size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()},
        {"name": "sub/state.json", "size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
    ]


async def test_a_single_file_is_a_checkpoint_and_its_newer_content_replaces_it(
    tmp_path: Path,
) -> None:
    files = rank_files(tmp_path)
    checkpoints = Checkpoints(files)
    path = files.checkpoint_dir / "model.pt"
    for step, content in ((1, "old"), (2, "newer")):
        path.write_text(content)
        assert report(checkpoints, step, path="model.pt") is None
        assert await settle(checkpoints) == []
    (proven,) = checkpoints.proven()
    assert (proven.step, proven.size_bytes) == (2, 5)


@pytest.mark.parametrize("path", ["/etc", "..", ".", "../other", "a/../..", "link/x"])
def test_a_path_outside_of_the_checkpoint_folder_is_refused(tmp_path: Path, path: str) -> None:
    files = rank_files(tmp_path)
    (files.checkpoint_dir / "link").symlink_to(tmp_path)
    fault = report(Checkpoints(files), 1, path=path)
    assert fault is not None
    assert "not inside" in fault


async def test_a_checkpoint_inside_of_another_is_refused(tmp_path: Path) -> None:
    files = rank_files(tmp_path)
    checkpoints = Checkpoints(files)
    report(checkpoints, 1, path=save(files, "a"))
    assert "inside of another" in str(
        report(checkpoints, 2, path=files.checkpoint_dir / "a" / "sub")
    )


async def test_the_same_report_twice_is_one_checkpoint(tmp_path: Path) -> None:
    files = rank_files(tmp_path)
    checkpoints = Checkpoints(files)
    path = save(files, "step-5")
    for end in (10, 20):
        assert report(checkpoints, 5, path=path, end=end) is None
    await settle(checkpoints)
    assert report(checkpoints, 5, path=path, end=30) is None
    assert not checkpoints.has_work
    assert len(checkpoints.proven()) == 1


async def test_one_that_is_missing_or_empty_or_no_file_is_not_proven(tmp_path: Path) -> None:
    files = rank_files(tmp_path)
    checkpoints = Checkpoints(files)
    (files.checkpoint_dir / "empty").mkdir()
    (files.checkpoint_dir / "pipe").mkdir()
    os.mkfifo(files.checkpoint_dir / "pipe" / "p")
    for step, name in enumerate(("missing", "empty", "pipe"), 1):
        assert report(checkpoints, step, path=name) is None
    faults = await settle(checkpoints)
    assert len(faults) == 3
    assert all(f"step {step}" in fault for step, fault in enumerate(faults, 1))
    assert checkpoints.proven() == ()
    assert not list(files.checkpoint_dir.glob("*.json"))


def test_one_that_changes_while_it_is_read_is_not_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(rank_files(tmp_path), "step-5")
    read = proof._digest

    def meddle(file: proof._File, cancelled: threading.Event) -> str:
        digest = read(file, cancelled)
        (path / "late.bin").write_text("more")
        return digest

    monkeypatch.setattr(proof, "_digest", meddle)
    with pytest.raises(Unproven, match="changed"):
        prove(path, cancelled=threading.Event())


def test_links_are_listed_and_never_followed(tmp_path: Path) -> None:
    path = save(rank_files(tmp_path), "step-5")
    (tmp_path / "secret").write_text("secret")
    (path / "link").symlink_to(tmp_path / "secret")
    (path / "loop").symlink_to(path)
    prove(path, cancelled=threading.Event())
    listed = json.loads(manifest_path(path).read_bytes())["files"]
    assert {"name": "link", "link": str(tmp_path / "secret")} in listed
    assert len(listed) == 4


def test_a_cancelled_proof_gives_up(tmp_path: Path) -> None:
    path = save(rank_files(tmp_path), "step-5")
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Unproven):
        prove(path, cancelled=cancelled)


async def test_the_last_ones_are_kept_and_older_ones_deleted(tmp_path: Path) -> None:
    files = rank_files(tmp_path, keep=2)
    checkpoints = Checkpoints(files)
    for step in range(1, 5):
        report(checkpoints, step, path=save(files, f"step-{step}", content=str(step)))
        await settle(checkpoints)
    assert [c.step for c in checkpoints.proven()] == [3, 4]
    assert sorted(p.name for p in files.checkpoint_dir.iterdir()) == [
        "step-3",
        "step-3.manifest.json",
        "step-4",
        "step-4.manifest.json",
    ]


async def test_a_newer_one_that_is_not_proven_retires_nothing(tmp_path: Path) -> None:
    files = rank_files(tmp_path, keep=1)
    checkpoints = Checkpoints(files)
    report(checkpoints, 1, path=save(files, "step-1"))
    report(checkpoints, 2, path="missing")
    assert len(await settle(checkpoints)) == 1
    assert [c.step for c in checkpoints.proven()] == [1]
    assert (files.checkpoint_dir / "step-1").exists()


async def test_only_what_still_exists_is_listed(tmp_path: Path) -> None:
    files = rank_files(tmp_path)
    checkpoints = Checkpoints(files)
    path = save(files, "step-1")
    report(checkpoints, 1, path=path)
    await settle(checkpoints)
    path.rename(tmp_path / "elsewhere")
    assert checkpoints.proven() == ()


async def test_a_restart_knows_what_was_proven_and_proves_nothing_twice(tmp_path: Path) -> None:
    files = rank_files(tmp_path, keep=1)
    checkpoints = Checkpoints(files)
    for step in (1, 2):
        report(checkpoints, step, path=save(files, f"step-{step}", content=str(step)))
    await settle(checkpoints)
    again = Checkpoints(files)
    assert again.proven() == checkpoints.proven()
    for step in (1, 2):
        assert report(again, step, path=files.checkpoint_dir / f"step-{step}") is None
    assert not again.has_work


def test_the_number_that_waits_is_bounded(tmp_path: Path) -> None:
    files = rank_files(tmp_path)
    checkpoints = Checkpoints(files)
    for step in range(1, MAX_WAITING + 1):
        assert report(checkpoints, step, path=f"step-{step}") is None
    assert "wait" in str(report(checkpoints, 1000, path="step-1000"))


async def an_earlier_attempt(root: Path, *steps: int) -> tuple[RankFiles, list[Path]]:
    """The files of the second attempt of a job whose first one has proven some; where they are."""
    first = Checkpoints(rank_files(root))
    paths = [save(rank_files(root), f"step-{step}", content=f"{step}") for step in steps]
    for step, path in zip(steps, paths, strict=True):
        assert report(first, step, path=path) is None
        await settle(first)
    (root / "lease" / "checkpoints.json").unlink()  # each attempt has a folder of its own
    files = replace(rank_files(root, keep=2), attempt=2, earlier=first.proven())
    return files, paths


async def test_of_all_attempts_together_the_last_n_are_kept(tmp_path: Path) -> None:
    files, (one, two) = await an_earlier_attempt(tmp_path, 1, 2)
    checkpoints = Checkpoints(files)
    assert checkpoints.proven() == ()
    report(checkpoints, 3, path=save(files, "step-3", content="3"))
    await settle(checkpoints)
    assert [x.step for x in checkpoints.proven()] == [3]
    assert checkpoints.retired == (files.earlier[0].checkpoint_id,)
    assert (one.exists(), two.exists()) == (False, True)
    again = Checkpoints(files)
    report(again, 4, path=save(files, "step-4", content="4"))
    await settle(again)
    assert [x.step for x in again.proven()] == [3, 4]
    assert again.retired == tuple(x.checkpoint_id for x in files.earlier)
    assert not two.exists()


async def test_what_an_attempt_goes_on_from_stays(tmp_path: Path) -> None:
    files, (one, two) = await an_earlier_attempt(tmp_path, 1, 2)
    files = replace(files, resumed=files.earlier[0].checkpoint_id)
    checkpoints = Checkpoints(files)
    for step in (3, 4, 5):
        report(checkpoints, step, path=save(files, f"step-{step}", content=f"{step}"))
        await settle(checkpoints)
    assert [x.step for x in checkpoints.proven()] == [4, 5]
    assert checkpoints.retired == (files.earlier[1].checkpoint_id,)
    assert (one.exists(), two.exists()) == (True, False)


async def test_what_lies_elsewhere_or_around_is_nobodys_to_delete(tmp_path: Path) -> None:
    files, (one, two) = await an_earlier_attempt(tmp_path, 1, 2)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    strange = [
        replace(files.earlier[0], checkpoint_id=f"ckpt_{number}", uri=uri)
        for number, uri in enumerate((elsewhere.as_uri(), "s3://bucket/x", "file:///%00", "//["))
    ]
    files = replace(files, earlier=(*strange, *files.earlier), keep_checkpoints=1)
    checkpoints = Checkpoints(files)
    inside = save(files, "step-1/again", content="3")
    report(checkpoints, 3, path=inside)
    await settle(checkpoints)
    assert elsewhere.exists()
    assert one.exists()
    assert inside.exists()
    assert not two.exists()
    assert checkpoints.retired == (files.earlier[-1].checkpoint_id,)


async def test_what_is_saved_over_one_of_an_earlier_attempt_takes_its_place(tmp_path: Path) -> None:
    files, (_, two) = await an_earlier_attempt(tmp_path, 1, 2)
    checkpoints = Checkpoints(files)
    (two / "model.bin").write_text("new")
    report(checkpoints, 2, path=two)
    await settle(checkpoints)
    assert [x.step for x in checkpoints.proven()] == [2]
    assert checkpoints.retired == (files.earlier[1].checkpoint_id,)
    assert two.exists()
