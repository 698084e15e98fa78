"""Makes the example's package importable, as running its script does; small settings for speed."""

import os
import sys
from pathlib import Path

import pytest

import scaimind

EXAMPLE = Path(scaimind.__file__).parents[1] / "examples" / "tiny_lm"

# Before numpy loads: the same arithmetic as the script's, and no threads fighting over the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(EXAMPLE))


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """Forty small files of text that repeats itself, so that little training shows."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(40):
        lines = [f"def name_{number}(value):\n    return value + {n}\n" for n in range(20)]
        (folder / f"file_{number:02d}.py").write_text("".join(lines))
    return folder
