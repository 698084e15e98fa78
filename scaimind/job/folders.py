"""Checkpoint folders that are either whole and durable, or not there at all.

A checkpoint is written into a hidden draft beside its final place, flushed to the disk and then
renamed. A published folder never changes: saving the same step again takes a new name.
"""

import os
import stat
from pathlib import Path

_DRAFT_PREFIX = ".saving-"
_MAX_SAME_STEP = 1000


def new_draft(parent: Path, owner: str) -> Path:
    """Make an empty draft folder in `parent` for `owner`, a name that only this attempt has: JOB-NUMBER."""
    parent.mkdir(parents=True, exist_ok=True)
    draft = parent / f"{_DRAFT_PREFIX}{owner}-{os.urandom(6).hex()}"
    draft.mkdir()
    return draft


def publish(draft: Path, name: str) -> Path:
    """Make `draft` durable, then visible as `name` beside it; returns the final path.

    ValueError where nothing was written into it; OSError where the disk refuses.
    """
    if not any(draft.iterdir()):
        raise ValueError(f"checkpoint {name} is empty: nothing was written into its folder")
    _sync_tree(draft)
    for attempt in range(1, _MAX_SAME_STEP + 1):
        final = draft.parent / (name if attempt == 1 else f"{name}-{attempt}")
        if final.exists():
            continue
        try:
            draft.rename(final)
        except FileExistsError:
            continue
        except OSError:
            if not final.exists():
                raise
            continue
        _sync(draft.parent)
        return final
    raise FileExistsError(f"{name} was already saved {_MAX_SAME_STEP} times")


def discard(draft: Path) -> None:
    """Remove a draft and all that it holds, as far as the disk lets us."""
    import shutil  # loads the compression modules, which most ranks never need

    shutil.rmtree(draft, ignore_errors=True)


def discard_leftovers(parent: Path, job: str, *, own: str) -> None:
    """Remove drafts that earlier attempts of `job` left behind when they were killed.

    The drafts of `own`, which is this attempt, stay, and so do those of other jobs: retries of one job
    run side by side in one folder.
    """
    for path in parent.glob(f"{_DRAFT_PREFIX}{job}-*"):
        if not path.name.startswith(f"{_DRAFT_PREFIX}{own}-"):
            discard(path)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for file in files:
            path = Path(root, file)
            if stat.S_ISREG(path.lstat().st_mode):
                _sync(path)
        _sync(Path(root))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
