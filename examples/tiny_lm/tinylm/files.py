"""What goes to disk: checkpoints to go on from, and the finished model."""

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from tinylm.model import VOCABULARY, Array, Model, Shape, views
from tinylm.trainer import Trainer

_MODEL_TYPE = "tiny-lm"
# What the readers of JSON, zip and numpy files raise for files that are cut or are something else.
_DAMAGE = (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, BadZipFile)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another model."""


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write all that a later training needs to go on exactly."""
    state = {
        "step": trainer.step,
        "shape": trainer.shape._asdict(),
        "text_digest": trainer.corpus.digest,
    }
    (folder / "state.json").write_text(json.dumps(state, indent=2) + "\n")
    np.savez(
        folder / "arrays.npz",
        params=trainer.model.flat,
        first=trainer.optimizer.first,
        second=trainer.optimizer.second,
    )


def load_checkpoint(folder: Path, trainer: Trainer) -> bool:
    """Put `trainer` where the checkpoint was; False where that was made from other text.

    CheckpointError where it is damaged, or holds a model of another shape.
    """
    try:
        state = json.loads((folder / "state.json").read_text())
        step, shape, digest = int(state["step"]), Shape(**state["shape"]), state["text_digest"]
        if step < 0:
            raise ValueError(f"step {step} is negative")
        # Opened here, because numpy leaves a file open that turns out to be damaged.
        with open(folder / "arrays.npz", "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = [_vector(file[name], shape) for name in ("params", "first", "second")]
    except _DAMAGE as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error}") from error
    if shape != trainer.shape:
        raise CheckpointError(f"checkpoint {folder} holds {shape}, not {trainer.shape}")
    trainer.step = step
    own = (trainer.model.flat, trainer.optimizer.first, trainer.optimizer.second)
    for target, array in zip(own, arrays, strict=True):
        target[...] = array
    return bool(digest == trainer.corpus.digest)


def save_model(folder: Path, model: Model) -> list[Path]:
    """Write the finished model as config.json, model.safetensors and model.npz."""
    config = {"model_type": _MODEL_TYPE, "vocabulary": VOCABULARY} | model.shape._asdict()
    paths = [folder / name for name in ("config.json", "model.safetensors", "model.npz")]
    paths[0].write_text(json.dumps(config, indent=2) + "\n")
    _write_safetensors(paths[1], model.params)
    arrays: dict[str, Any] = dict(model.params)
    np.savez(paths[2], **arrays)
    return paths


def load_model(folder: Path) -> Model:
    """Read what `save_model` wrote, the weights from model.safetensors."""
    try:
        config = json.loads((folder / "config.json").read_text())
        if config.get("model_type") != _MODEL_TYPE:
            raise ValueError(f"model_type is not {_MODEL_TYPE}")
        shape = Shape(**{name: int(config[name]) for name in Shape._fields})
        flat: Array = np.zeros(shape.size, np.float32)
        tensors = _read_safetensors(folder / "model.safetensors")
        for name, array in views(flat, shape).items():
            array[...] = tensors[name]
    except _DAMAGE as error:
        raise CheckpointError(f"model {folder} cannot be read: {error}") from error
    return Model(flat, shape)


def _vector(array: Array, shape: Shape) -> Array:
    if array.shape != (shape.size,) or array.dtype != np.float32:
        raise ValueError(f"expected {shape.size} float32 values, got {array.shape} {array.dtype}")
    return array


def _write_safetensors(path: Path, tensors: dict[str, Array]) -> None:
    """The format: length of the header (8 bytes, little endian), JSON header, raw tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "np"}}
    blobs: list[bytes] = []
    offset = 0
    for name, array in tensors.items():
        blob = array.astype("<f4").tobytes()
        end = offset + len(blob)
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": (offset, end)}
        blobs.append(blob)
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the tensors start aligned
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *blobs]))


def _read_safetensors(path: Path) -> dict[str, Array]:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors: dict[str, Array] = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = np.frombuffer(data[start + begin : start + end], "<f4")
            tensors[name] = values.reshape(entry["shape"])
    return tensors
