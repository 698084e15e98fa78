"""Writing text with a model, a byte at a time."""

from collections.abc import Iterator

import numpy as np

from tinylm.model import Model


def generate(
    model: Model, prompt: bytes, *, count: int, temperature: float, seed: int
) -> Iterator[int]:
    """`count` bytes after `prompt` (not empty); a lower temperature takes fewer chances."""
    rng = np.random.default_rng(seed)
    window = list(prompt[-model.shape.context :])
    for _ in range(count):
        scores = model.logits(np.array([window], dtype=np.intp))[0, -1].astype(np.float64)
        scores = (scores - scores.max()) / temperature
        chances = np.exp(scores)
        byte = int(rng.choice(len(chances), p=chances / chances.sum()))
        yield byte
        window = [*window, byte][-model.shape.context :]


def write(model: Model, prompt: str, *, count: int, temperature: float, seed: int) -> str:
    """The prompt and `count` bytes after it as text that is safe to print."""
    start = prompt.encode() or b"\n"
    made = bytes(generate(model, start, count=count, temperature=temperature, seed=seed))
    text = (start + made).decode(errors="replace")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
