"""Models of the kind `tiny-lm`, the language model of bytes that the example trains: forward pass alone.

Pre-norm blocks of causal self-attention with rotary positions and a squared-ReLU MLP, RMS norms, no
biases. Shapes: T positions, D model width, H heads, V = 256 bytes. Reads the finished model (config.json,
model.safetensors) and checkpoints (state.json, arrays.npz).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaimind.evaluation.registry import Scored

Array = NDArray[np.float32]
KIND = "tiny-lm"
VOCABULARY = 256
START = b"\n"  # stands before a text that has no prompt
PARAMETERS_MAX = 1 << 30
_EPSILON, _BASE = 1e-5, 10_000.0


class Shape(NamedTuple):
    """What fixes the layout of the parameters."""

    context: int
    d_model: int
    layers: int
    heads: int

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Each parameter's name and shape, in the order of a checkpoint's flat vector."""
        d = self.d_model
        shapes: dict[str, tuple[int, ...]] = {"embed": (VOCABULARY, d)}
        for layer in range(self.layers):
            own = (("attention_norm", (d,)), ("qkv", (d, 3 * d)), ("mix", (d, d)))
            rest = (("mlp_norm", (d,)), ("up", (d, 4 * d)), ("down", (4 * d, d)))
            shapes |= {f"layers.{layer}.{name}": dims for name, dims in (*own, *rest)}
        return shapes | {"norm": (d,), "head": (d, VOCABULARY)}


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of this kind."""
    return (folder / "state.json").is_file() and (folder / "arrays.npz").is_file()


def load(folder: Path) -> TinyLm:
    """The model or the checkpoint in a folder. ValueError, OSError or KeyError where it is none."""
    if is_checkpoint(folder):
        state = json.loads((folder / "state.json").read_text())
        shape = _shape(state["shape"])
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            return TinyLm(shape, _cut(file["params"], shape))
    shape = _shape(json.loads((folder / "config.json").read_text()))
    return TinyLm(shape, _tensors(folder / "model.safetensors", shape))


class TinyLm:
    """A transformer over bytes; a token is a byte."""

    def __init__(self, shape: Shape, params: dict[str, Array]) -> None:
        """Takes the parameters by name, each of its shape."""
        self.shape, self._params = shape, params
        half = shape.d_model // shape.heads // 2
        angles = np.outer(np.arange(shape.context), _BASE ** (-np.arange(half) / half))
        self._cos = np.cos(angles).astype(np.float32)
        self._sin = np.sin(angles).astype(np.float32)

    def score(self, prompt: str, text: str) -> Scored:
        """How well it foretells the bytes of `text`, each from as many before it as it can see."""
        before = prompt.encode() or START
        ids = np.frombuffer(before + text.encode(), np.uint8).astype(np.intp)
        hits, loss, at = 0, 0.0, len(before)
        while at < len(ids):
            first = max(0, at - self.shape.context // 2)
            end = min(len(ids), first + self.shape.context + 1)
            # Row r of the scores foretells the byte at first + r + 1.
            rows = self.logits(ids[first : end - 1])[at - first - 1 :]
            wanted = ids[at:end]
            hits += int((rows.argmax(axis=1) == wanted).sum())
            top = rows.max(axis=1, keepdims=True)
            chosen = rows[np.arange(len(wanted)), wanted] - top[:, 0]
            loss += float((np.log(np.exp(rows - top).sum(axis=1)) - chosen).sum())
            at = end
        return Scored(len(ids) - len(before), hits, loss)

    def complete(self, prompt: str, *, max_new_tokens: int, temperature: float, seed: int) -> str:
        """The bytes that it writes after `prompt`, as text."""
        rng = np.random.default_rng(seed)
        window = list(prompt.encode() or START)
        written = bytearray()
        for _ in range(max_new_tokens):
            seen = np.array(window[-self.shape.context :], np.intp)
            last = self.logits(seen)[-1].astype(np.float64)
            if temperature > 0:
                chances = np.exp((last - last.max()) / temperature)
                byte = int(rng.choice(VOCABULARY, p=chances / chances.sum()))
            else:
                byte = int(last.argmax())
            window.append(byte)
            written.append(byte)
        return written.decode(errors="replace")

    def logits(self, ids: NDArray[np.intp]) -> Array:
        """Scores (T, V) of the byte after each of `ids` (T), at most `context` of them."""
        x: Array = self._params["embed"][ids]
        for layer in range(self.shape.layers):
            x = self._block(x, f"layers.{layer}.")
        out: Array = _norm(x, self._params["norm"]) @ self._params["head"]
        return out

    def _block(self, x: Array, name: str) -> Array:
        p = self._params
        q, k, v = (
            part.reshape(len(x), self.shape.heads, -1).swapaxes(0, 1)
            for part in np.split(_norm(x, p[f"{name}attention_norm"]) @ p[f"{name}qkv"], 3, axis=1)
        )
        weights = self._rotated(q) @ self._rotated(k).swapaxes(1, 2)
        weights *= np.float32(q.shape[2] ** -0.5)
        weights += np.triu(np.full((len(x), len(x)), -np.inf, np.float32), 1)
        weights = np.exp(weights - weights.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        x = x + (weights @ v).swapaxes(0, 1).reshape(len(x), -1) @ p[f"{name}mix"]
        active = np.maximum(_norm(x, p[f"{name}mlp_norm"]) @ p[f"{name}up"], 0)
        out: Array = x + (active * active) @ p[f"{name}down"]
        return out

    def _rotated(self, x: Array) -> Array:
        cos, sin = self._cos[: x.shape[1]], self._sin[: x.shape[1]]
        first, second = np.split(x, 2, axis=2)
        return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=2)


def _norm(x: Array, gain: Array) -> Array:
    out: Array = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + np.float32(_EPSILON)) * gain
    return out


def _shape(values: dict[str, Any]) -> Shape:
    shape = Shape(**{name: int(values[name]) for name in Shape._fields})
    size = sum(int(np.prod(dims)) for dims in shape.layout().values()) if min(shape) > 0 else 0
    if not 0 < size <= PARAMETERS_MAX or shape.d_model % (2 * shape.heads):
        raise ValueError(f"{shape} is no shape of a {KIND} model")
    return shape


def _cut(flat: Array, shape: Shape) -> dict[str, Array]:
    params: dict[str, Array] = {}
    start = 0
    for name, dims in shape.layout().items():
        end = start + int(np.prod(dims))
        params[name] = flat[start:end].reshape(dims).astype(np.float32)
        start = end
    if start != flat.size:
        raise ValueError(f"a {KIND} model of {shape} has {start} parameters, not {flat.size}")
    return params


def _tensors(path: Path, shape: Shape) -> dict[str, Array]:
    """The format: length of the header (8 bytes, little endian), JSON header, raw tensors."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    params: dict[str, Array] = {}
    for name, dims in shape.layout().items():
        begin, end = header[name]["data_offsets"]
        values = np.frombuffer(data[start + begin : start + end], "<f4")
        params[name] = values.reshape(dims).astype(np.float32)
    return params
