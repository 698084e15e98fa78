"""Checkpoints appear whole, once, and for good."""

from pathlib import Path

import pytest

from scaimind.job import Attempt
from scaimind.job.environment import read
from tests.unit.job.conftest import Events


def save(run: Attempt, step: int, content: str = "weights") -> None:
    with run.checkpoint(step) as folder:
        (folder / "optimizer").mkdir()
        (folder / "optimizer" / "state").write_text("state")
        (folder / "model").write_text(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_invisible_until_it_is_whole(run: Attempt, events: Events) -> None:
    with run.checkpoint(100) as folder:
        (folder / "model").write_text("weights")
        assert folder.parent == run.checkpoint_dir
        assert not [name for name in names(run.checkpoint_dir) if not name.startswith(".")]
        assert events() == []
    path = run.checkpoint_dir / "step-00000100"
    assert (path / "model").read_text() == "weights"
    assert names(run.checkpoint_dir) == ["step-00000100"]
    assert events() == [{"event": "checkpoint", "step": 100, "path": str(path)}]


def test_folders_within_a_checkpoint_are_kept(run: Attempt) -> None:
    save(run, 1)
    assert (run.checkpoint_dir / "step-00000001" / "optimizer" / "state").read_text() == "state"


def test_an_exception_while_saving_leaves_nothing(run: Attempt, events: Events) -> None:
    saving = run.checkpoint(1)
    (saving.__enter__() / "half").write_text("half")
    error = KeyboardInterrupt()
    assert not saving.__exit__(KeyboardInterrupt, error, None)
    assert names(run.checkpoint_dir) == []
    assert events() == []


def test_an_empty_checkpoint_is_refused(run: Attempt, events: Events) -> None:
    with pytest.raises(ValueError, match="nothing was written"), run.checkpoint(1):
        pass
    assert names(run.checkpoint_dir) == []
    assert events() == []


def test_a_published_checkpoint_never_changes(run: Attempt, events: Events) -> None:
    for content in ("first", "second", "third"):
        save(run, 7, content)
    contents = {
        name: (run.checkpoint_dir / name / "model").read_text()
        for name in names(run.checkpoint_dir)
    }
    assert contents == {
        "step-00000007": "first",
        "step-00000007-2": "second",
        "step-00000007-3": "third",
    }
    assert [Path(event["path"]).name for event in events()] == sorted(contents)


def test_drafts_of_dead_attempts_are_removed_by_the_next(environ: dict[str, str]) -> None:
    dead = Attempt(read(environ))
    with pytest.raises(ValueError, match="nothing"), dead.checkpoint(1) as own:
        pass
    leftover = own.with_name(own.name + "-killed")
    leftover.mkdir()
    (leftover / "half").write_text("half")
    alive = Attempt(read(environ | {"MIND_ATTEMPT": "2"}))
    save(alive, 1)
    assert names(alive.checkpoint_dir) == ["step-00000001"]


def test_drafts_of_other_ranks_of_the_same_attempt_are_left_alone(
    environ: dict[str, str],
) -> None:
    main = Attempt(read(environ))
    other = Attempt(read(environ | {"RANK": "1"}))
    with other.checkpoint(5) as folder:
        (folder / "shard").write_text("shard")
        save(main, 4)
    assert names(main.checkpoint_dir) == ["step-00000004", "step-00000005"]


def test_drafts_of_other_jobs_of_the_same_lineage_are_left_alone(environ: dict[str, str]) -> None:
    one = Attempt(read(environ))
    other = Attempt(read(environ | {"MIND_JOB_ID": "job_of_the_same_lineage"}))
    with other.checkpoint(5) as folder:
        (folder / "model").write_text("model")
        save(one, 5)
    assert names(one.checkpoint_dir) == ["step-00000005", "step-00000005-2"]


def test_a_checkpoint_that_other_code_wrote_is_announced(
    run: Attempt, events: Events, tmp_path: Path
) -> None:
    run.checkpoint_saved(tmp_path / "checkpoint-9", step=9)
    assert events() == [{"event": "checkpoint", "step": 9, "path": str(tmp_path / "checkpoint-9")}]


def test_a_disk_that_refuses_is_an_error_for_the_script(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    run = Attempt(read(environ | {"MIND_CHECKPOINT_DIR": str(tmp_path / "file" / "checkpoints")}))
    with pytest.raises(OSError, match="checkpoints"), run.checkpoint(1):
        pass
