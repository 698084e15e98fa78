"""The evaluation's reader of tiny-lm models computes what the example computes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tinylm import files, generate
from tinylm.model import Model, Shape, initial

from scaimind.evaluation import models, tiny_lm
from scaimind.evaluation.tiny_lm import TinyLm

SHAPE = Shape(context=16, d_model=32, layers=2, heads=4)


def made(folder: Path) -> tuple[Model, TinyLm]:
    """One model, as the example and as the evaluation holds it."""
    flat = initial(SHAPE, seed=3)
    flat += np.random.default_rng(4).normal(0, 0.1, flat.shape).astype(np.float32)
    model = Model(flat, SHAPE)
    files.save_model(folder, model)
    loaded = models.load(folder)
    assert isinstance(loaded, TinyLm)
    return model, loaded


def test_the_scores_are_the_examples(tmp_path: Path) -> None:
    model, loaded = made(tmp_path)
    ids = np.frombuffer(b"def name(value):", np.uint8).astype(np.intp)
    np.testing.assert_allclose(loaded.logits(ids), model.logits(ids[None])[0], rtol=1e-3, atol=1e-4)
    scored = loaded.score("d", "ef name(value):")
    assert scored.tokens == 15
    assert scored.loss / 15 == pytest.approx(model.loss(ids[None, :-1], ids[None, 1:]), rel=1e-3)


def test_a_text_longer_than_the_context_is_scored_byte_by_byte_once(tmp_path: Path) -> None:
    _, loaded = made(tmp_path)
    for length in (0, 1, 8, 15, 16, 17, 100):
        scored = loaded.score("", "x" * length)
        assert scored.tokens == length
        assert 0 <= scored.hits <= length
        assert math.isfinite(scored.loss)
    once = sum(loaded.score("x" * n, "x").loss for n in range(1, 12))
    assert loaded.score("x", "x" * 11).loss == pytest.approx(once, rel=1e-3)


def test_what_it_writes_with_temperature_is_the_examples(tmp_path: Path) -> None:
    model, loaded = made(tmp_path)
    wanted = bytes(generate.generate(model, b"def ", count=8, temperature=0.01, seed=1))
    written = loaded.complete("def ", max_new_tokens=8, temperature=0.01, seed=1)
    assert written == wanted.decode(errors="replace")
    greedy = loaded.complete("def ", max_new_tokens=8, temperature=0, seed=1)
    assert greedy == loaded.complete("def ", max_new_tokens=8, temperature=0, seed=2)


def test_a_checkpoint_is_a_model_as_well(tmp_path: Path) -> None:
    model, loaded = made(tmp_path)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "state.json").write_text(
        '{"shape": {"context": 16, "d_model": 32, "layers": 2, "heads": 4}}'
    )
    np.savez(folder / "arrays.npz", params=model.flat)
    assert models.load(folder).score("a", "bc") == loaded.score("a", "bc")


@pytest.mark.parametrize(
    "config",
    [
        "{}",
        "[]",
        "no json",
        '{"model_type": "bert"}',
        '{"model_type": "tiny-lm"}',
        '{"model_type": "tiny-lm", "context": 0, "d_model": 32, "layers": 2, "heads": 4}',
        '{"model_type": "tiny-lm", "context": 9, "d_model": 1e9, "layers": 9, "heads": 1}',
    ],
)
def test_what_is_no_model_is_said_to_be_none(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match="the model cannot be read"):
        models.load(tmp_path)
    with pytest.raises(ValueError, match="the model cannot be read"):
        models.load(tmp_path / "none")
    assert not tiny_lm.is_checkpoint(tmp_path)
