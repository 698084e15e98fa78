"""The text to learn: the bytes of a file, or of every text file in a folder."""

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_FILE_BYTES = 256 * 1024
MAX_TEXT_BYTES = 16 * 1024 * 1024
VALIDATION_SHARE = 0.05
_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}

Tokens = NDArray[np.uint8]
Windows = tuple[NDArray[np.intp], NDArray[np.intp]]


class Corpus(NamedTuple):
    """Text for training and other text, from other files, for validation."""

    train: Tokens
    validation: Tokens
    files: int
    digest: str


def standard_library() -> Path:
    """The folder of this Python's own source: real text on every machine."""
    return Path(sysconfig.get_paths()["stdlib"])


def load(source: Path, *, seed: int, context: int) -> Corpus:
    """Read `source`; ValueError where it holds too little text for windows of `context`."""
    pieces = list(_pieces(source, seed=seed))
    joined = b"".join(pieces)
    tokens = np.frombuffer(joined, dtype=np.uint8)
    # Cut between files where there are several: a file must not be in both parts.
    cut = int(len(tokens) * (1 - VALIDATION_SHARE))
    ends = np.cumsum([len(piece) for piece in pieces])[:-1]
    if len(ends) >= 20:
        cut = int(ends[np.argmin(np.abs(ends - cut))])
    train, validation = tokens[:cut], tokens[cut:]
    if min(len(train), len(validation)) < context + 2:
        raise ValueError(f"{source} holds {len(tokens)} bytes of text, too few to learn from")
    return Corpus(train, validation, len(pieces), hashlib.sha256(joined).hexdigest())


def windows(tokens: Tokens, *, key: tuple[int, ...], count: int, context: int) -> Windows:
    """`count` random windows as inputs and next bytes, both (count, context).

    They depend on `key` alone (a seed and a step), so a resumed training sees what it would have
    seen, with no generator state to save.
    """
    starts = np.random.default_rng(key).integers(0, len(tokens) - context, size=count)
    chosen = tokens[starts[:, None] + np.arange(context + 1)].astype(np.intp)
    return chosen[:, :-1], chosen[:, 1:]


def _pieces(source: Path, *, seed: int) -> Iterator[bytes]:
    """The files' bytes in an order drawn from `seed`, up to MAX_TEXT_BYTES in all."""
    paths = sorted(_files(source)) if source.is_dir() else [source]
    limit = MAX_FILE_BYTES if source.is_dir() else MAX_TEXT_BYTES
    total = 0
    for number in np.random.default_rng([seed, len(paths)]).permutation(len(paths)):
        piece = _read_text(paths[number], limit=min(limit, MAX_TEXT_BYTES - total))
        if piece:
            total += len(piece)
            yield piece
        if total >= MAX_TEXT_BYTES:
            return


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [n for n in folders if n not in _SKIPPED_FOLDERS and not n.startswith(".")]
        yield from (Path(root, name) for name in files if not name.startswith("."))


def _read_text(path: Path, *, limit: int) -> bytes:
    """At most `limit` bytes of a regular file; nothing where it is binary (has a zero byte)."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        data = file.read(limit)
    return b"" if b"\0" in data else data
