"""Folders of the cache: what they are called, and how they are made durable and removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from node_agent.files import sync as sync

TREE = "tree"  # what is being fetched, or what an archive holds
WHOLE = "whole"  # what may be taken for whole: META and TREE
META = "meta.json"


def empty_tree(folder: Path) -> None:
    """Removes what is in a folder, and not the folder."""
    for path in folder.iterdir():
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink()


def remove_tree(folder: Path) -> None:
    """Removes a folder whose folders may not be written to; nothing where there is none."""
    if not folder.exists():
        return
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o700)
    shutil.rmtree(folder)
