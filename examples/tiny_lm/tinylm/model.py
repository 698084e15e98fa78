"""The transformer: parameters, forward pass, and the backward pass by hand.

Pre-norm blocks of causal self-attention with rotary positions and a squared-ReLU MLP, RMS norms,
no biases. Shapes: B sequences, T positions, N = B * T rows, D model width, H heads, V bytes.
All parameters are views into one flat vector, and all gradients into another of the same layout,
so that an optimiser step is a few vector operations and a checkpoint a few arrays.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating]
Ids = NDArray[np.intp]
Tree = dict[str, Array]

VOCABULARY = 256
_NORM_EPSILON = 1e-5
_ROTARY_BASE = 10_000.0


class Shape(NamedTuple):
    """What fixes the layout of the parameters and the longest context."""

    context: int
    d_model: int
    layers: int
    heads: int

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Each parameter's name and shape, in the order of the flat vector."""
        d = self.d_model
        shapes: dict[str, tuple[int, ...]] = {"embed": (VOCABULARY, d)}
        for layer in range(self.layers):
            shapes[f"layers.{layer}.attention_norm"] = (d,)
            shapes[f"layers.{layer}.qkv"] = (d, 3 * d)
            shapes[f"layers.{layer}.mix"] = (d, d)
            shapes[f"layers.{layer}.mlp_norm"] = (d,)
            shapes[f"layers.{layer}.up"] = (d, 4 * d)
            shapes[f"layers.{layer}.down"] = (4 * d, d)
        return shapes | {"norm": (d,), "head": (d, VOCABULARY)}

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(int(np.prod(shape)) for shape in self.layout().values())


def views(flat: Array, shape: Shape) -> Tree:
    """`flat` (shape.size) cut into named arrays that share its memory."""
    tree: Tree = {}
    start = 0
    for name, dims in shape.layout().items():
        end = start + int(np.prod(dims))
        tree[name] = flat[start:end].reshape(dims)
        start = end
    return tree


def initial(shape: Shape, *, seed: int, dtype: DTypeLike = np.float32) -> Array:
    """Fresh flat parameters. The head starts at zero, so the first loss is ln(256)."""
    rng = np.random.default_rng([seed, shape.size])
    flat: Array = np.zeros(shape.size, dtype)
    for name, array in views(flat, shape).items():
        if array.ndim == 1:
            array[...] = 1
        elif name == "embed":
            array[...] = rng.normal(0, 0.5, array.shape)
        elif name != "head":
            # What writes into the residual stream starts smaller, the more layers write there.
            writes = name.endswith(("mix", "down"))
            scale = 0.5 / np.sqrt(2 * shape.layers) if writes else 1.0
            array[...] = rng.normal(0, scale / np.sqrt(array.shape[0]), array.shape)
    return flat


class Model:
    """The transformer over one flat vector of parameters; holds no state besides."""

    def __init__(self, flat: Array, shape: Shape) -> None:
        self.flat = flat
        self.shape = shape
        self.params = views(flat, shape)
        half = shape.d_model // shape.heads // 2
        speeds = _ROTARY_BASE ** (-np.arange(half) / half)
        angles = np.outer(np.arange(shape.context), speeds)
        self._cos = np.cos(angles).astype(flat.dtype)
        self._sin = np.sin(angles).astype(flat.dtype)
        self._future = np.triu(np.full((shape.context,) * 2, -np.inf, flat.dtype), 1)

    def logits(self, ids: Ids) -> Array:
        """Scores of the next byte after each position: ids (B, T) to (B, T, V)."""
        x = self._stream(ids, [])
        hidden, _ = _norm(x, self.params["norm"])
        return (hidden @ self.params["head"]).reshape(*ids.shape, VOCABULARY)

    def loss(self, ids: Ids, targets: Ids) -> float:
        """Mean cross-entropy in nats per byte."""
        return _cross_entropy(self.logits(ids).reshape(-1, VOCABULARY), targets.reshape(-1))[0]

    def gradient(self, ids: Ids, targets: Ids, *, grad: Array) -> float:
        """Loss as in `loss`; overwrites `grad` (flat) with its gradient."""
        params, grads = self.params, views(grad, self.shape)
        saved: list[_Block] = []
        x = self._stream(ids, saved)
        hidden, norm = _norm(x, params["norm"])
        loss, d_logits = _cross_entropy(hidden @ params["head"], targets.reshape(-1))
        np.matmul(hidden.T, d_logits, out=grads["head"])
        dx, grads["norm"][...] = _norm_back(d_logits @ params["head"].T, norm, gain=params["norm"])
        for layer in reversed(range(self.shape.layers)):
            dx = self._block_back(dx, saved[layer], layer=layer, grads=grads, batch=len(ids))
        grads["embed"][...] = _scatter_rows(ids.reshape(-1), dx)
        return loss

    def _stream(self, ids: Ids, saved: list["_Block"]) -> Array:
        """The residual stream (N, D) after all blocks; what the way back needs goes to `saved`."""
        x = self.params["embed"][ids.reshape(-1)]
        for layer in range(self.shape.layers):
            x, block = self._block(x, layer, batch=len(ids))
            saved.append(block)
        return x

    def _block(self, x: Array, layer: int, *, batch: int) -> tuple[Array, "_Block"]:
        p = {name: self.params[f"layers.{layer}.{name}"] for name in _BLOCK_NAMES}
        normed, norm1 = _norm(x, p["attention_norm"])
        q, k, v = self._split(normed @ p["qkv"], batch)
        q, k = self._rotate(q, back=False), self._rotate(k, back=False)
        weights = self._attention(q, k)
        mixed = _merge(weights @ v)
        x = x + mixed @ p["mix"]
        normed2, norm2 = _norm(x, p["mlp_norm"])
        active = np.maximum(normed2 @ p["up"], 0)
        squared = active * active
        out = x + squared @ p["down"]
        return out, _Block(norm1, normed, q, k, v, weights, mixed, norm2, normed2, active, squared)

    def _block_back(
        self, d_out: Array, saved: "_Block", *, layer: int, grads: Tree, batch: int
    ) -> Array:
        p = {name: self.params[f"layers.{layer}.{name}"] for name in _BLOCK_NAMES}
        g = {name: grads[f"layers.{layer}.{name}"] for name in _BLOCK_NAMES}
        np.matmul(saved.squared.T, d_out, out=g["down"])
        d_up = (d_out @ p["down"].T) * saved.active
        d_up *= 2
        np.matmul(saved.normed2.T, d_up, out=g["up"])
        dx, g["mlp_norm"][...] = _norm_back(d_up @ p["up"].T, saved.norm2, gain=p["mlp_norm"])
        dx += d_out
        np.matmul(saved.mixed.T, dx, out=g["mix"])
        d_heads = self._heads(dx @ p["mix"].T, batch)
        d_v = saved.weights.swapaxes(2, 3) @ d_heads
        d_scores = _softmax_back(d_heads @ saved.v.swapaxes(2, 3), saved.weights)
        d_scores *= self._scale
        d_q = self._rotate(d_scores @ saved.k, back=True)
        d_k = self._rotate(d_scores.swapaxes(2, 3) @ saved.q, back=True)
        d_qkv = np.concatenate([_merge(d_q), _merge(d_k), _merge(d_v)], axis=1)
        np.matmul(saved.normed.T, d_qkv, out=g["qkv"])
        d_in, g["attention_norm"][...] = _norm_back(
            d_qkv @ p["qkv"].T, saved.norm1, gain=p["attention_norm"]
        )
        d_in += dx
        return d_in

    @property
    def _scale(self) -> float:
        return float((self.shape.d_model // self.shape.heads) ** -0.5)

    def _attention(self, q: Array, k: Array) -> Array:
        """Causal attention weights (B, H, T, T) of rotated queries and keys (B, H, T, D/H)."""
        length = q.shape[2]
        scores = q @ k.swapaxes(2, 3)
        scores *= self._scale
        scores += self._future[:length, :length]
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        return scores

    def _split(self, qkv: Array, batch: int) -> tuple[Array, Array, Array]:
        """(N, 3D) to queries, keys and values."""
        q, k, v = (self._heads(part, batch) for part in np.split(qkv, 3, axis=1))
        return q, k, v

    def _heads(self, x: Array, batch: int) -> Array:
        """(N, D) to (B, H, T, D/H), contiguous, which is what matmul is fast on."""
        parts = x.reshape(batch, -1, self.shape.heads, self.shape.d_model // self.shape.heads)
        return np.ascontiguousarray(parts.transpose(0, 2, 1, 3))

    def _rotate(self, x: Array, *, back: bool) -> Array:
        """Turn each pair of features by its position's angle, or back by it."""
        length, half = x.shape[2], x.shape[3] // 2
        cos, sin = self._cos[:length], self._sin[:length]
        if back:
            sin = -sin
        first, second = x[..., :half], x[..., half:]
        turned = np.empty_like(x)
        turned[..., :half] = first * cos - second * sin
        turned[..., half:] = first * sin + second * cos
        return turned


_BLOCK_NAMES = ("attention_norm", "qkv", "mix", "mlp_norm", "up", "down")
_Norm = tuple[Array, Array]


class _Block(NamedTuple):
    """What a block's backward pass needs of its forward pass."""

    norm1: _Norm
    normed: Array
    q: Array
    k: Array
    v: Array
    weights: Array
    mixed: Array
    norm2: _Norm
    normed2: Array
    active: Array
    squared: Array


def _merge(x: Array) -> Array:
    """(B, H, T, D/H) to (N, D)."""
    batch, heads, length, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch * length, heads * width)


def _norm(x: Array, gain: Array) -> tuple[Array, _Norm]:
    """RMS norm over features; the unit rows and the inverse lengths serve the way back."""
    inverse = 1 / np.sqrt(np.einsum("nd,nd->n", x, x)[:, None] / x.shape[1] + _NORM_EPSILON)
    inverse = inverse.astype(x.dtype)
    unit = x * inverse
    return unit * gain, (unit, inverse)


def _norm_back(dy: Array, saved: _Norm, *, gain: Array) -> tuple[Array, Array]:
    """Gradients of a norm's input (N, D) and of its gain (D)."""
    unit, inverse = saved
    d_gain = np.einsum("nd,nd->d", dy, unit)
    d_unit = dy * gain
    along = np.einsum("nd,nd->n", d_unit, unit)[:, None] / unit.shape[1]
    return (d_unit - unit * along) * inverse, d_gain


def _softmax_back(d_weights: Array, weights: Array) -> Array:
    along = np.einsum("bhts,bhts->bht", d_weights, weights)[..., None]
    d_weights -= along
    d_weights *= weights
    return d_weights


def _cross_entropy(logits: Array, targets: Ids) -> tuple[float, Array]:
    """Mean loss of scores (N, V) and its gradient; `logits` is used up."""
    rows = np.arange(len(targets))
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[rows, targets]
    np.exp(logits, out=logits)
    totals = logits.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(totals[:, 0]) - chosen))
    logits /= totals
    logits[rows, targets] -= 1
    logits /= len(targets)
    return loss, logits


def _scatter_rows(ids: Ids, rows: Array) -> Array:
    """Sum of the rows (N, D) of each byte: (V, D), as one product with a one-hot matrix."""
    one_hot = np.zeros((VOCABULARY, len(ids)), rows.dtype)
    one_hot[ids, np.arange(len(ids))] = 1
    return one_hot @ rows
