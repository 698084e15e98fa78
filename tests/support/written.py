"""What programs have written below a folder, read while they still work there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Each file below a folder with its content; what is removed meanwhile is left out."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file():
                    yield path, path.read_bytes()
