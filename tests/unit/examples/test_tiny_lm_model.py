"""The example's mathematics: gradients, causality, learning, the files it leaves."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tinylm import files, generate, text
from tinylm.model import VOCABULARY, Model, Shape, initial, views
from tinylm.optimizer import AdamW, learning_rate
from tinylm.settings import Settings
from tinylm.trainer import Trainer

SHAPE = Shape(context=6, d_model=8, layers=2, heads=2)
SMALL = Settings(steps=60, batch_size=8, context=16, d_model=32, heads=2, warmup_steps=5)


NUMPY_ARRAY = (
    b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }".ljust(117)
    + b"\n"
)


def random_model() -> Model:
    """A model in double precision with no parameter at a special value."""
    rng = np.random.default_rng(3)
    flat = initial(SHAPE, seed=1, dtype=np.float64)
    flat += rng.normal(0, 0.1, flat.shape)
    return Model(flat, SHAPE)


def batch() -> text.Windows:
    rng = np.random.default_rng(4)
    ids = rng.integers(0, VOCABULARY, (3, SHAPE.context))
    return ids, np.roll(ids, -1, axis=1)


def trainer_on(folder: Path, settings: Settings = SMALL) -> Trainer:
    return Trainer(settings, text.load(folder, seed=settings.seed, context=settings.context))


@pytest.mark.parametrize("name", SHAPE.layout())
def test_gradients_agree_with_finite_differences(name: str) -> None:
    model = random_model()
    ids, targets = batch()
    grad = np.zeros(SHAPE.size)
    loss = model.gradient(ids, targets, grad=grad)
    assert loss == pytest.approx(model.loss(ids, targets), rel=1e-12)
    values = model.params[name].reshape(-1)
    slopes = views(grad, SHAPE)[name].reshape(-1)
    # Of the embeddings only rows that occur have a slope worth testing.
    chosen = np.argsort(-np.abs(slopes))[:: max(1, len(slopes) // 40)][:12]
    for position in chosen:
        kept, step = values[position], 1e-5
        values[position] = kept + step
        above = model.loss(ids, targets)
        values[position] = kept - step
        below = model.loss(ids, targets)
        values[position] = kept
        assert slopes[position] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8)


def test_no_position_sees_what_comes_after_it() -> None:
    model = random_model()
    ids, _ = batch()
    other = ids.copy()
    other[:, 4:] = (other[:, 4:] + 1) % VOCABULARY
    before, after = model.logits(ids), model.logits(other)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert not np.allclose(before[:, 4:], after[:, 4:])


def test_a_shorter_text_scores_as_the_beginning_of_a_longer_one() -> None:
    model = random_model()
    ids, _ = batch()
    np.testing.assert_allclose(model.logits(ids[:, :3]), model.logits(ids)[:, :3], atol=1e-12)


def test_a_fresh_model_knows_nothing(text_folder: Path) -> None:
    assert trainer_on(text_folder).validate() == pytest.approx(math.log(256), abs=1e-5)


def test_the_loss_falls_clearly(text_folder: Path) -> None:
    trainer = trainer_on(text_folder)
    losses = [trainer.advance().loss for _ in range(SMALL.steps)]
    assert losses[0] == pytest.approx(math.log(256), abs=1e-5)
    assert np.mean(losses[-5:]) < 2.5
    assert trainer.validate() < 2.5


def test_the_rate_warms_up_and_decays() -> None:
    rates = [learning_rate(s, peak=1.0, warmup_steps=10, steps=100) for s in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] == pytest.approx(0.05)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_a_large_gradient_is_clipped_and_its_norm_told() -> None:
    shape = Shape(context=4, d_model=8, layers=1, heads=1)
    moved = []
    for size in (1.0, 1000.0):
        params, grad = np.zeros(shape.size, np.float32), np.full(shape.size, size, np.float32)
        optimizer = AdamW(shape, weight_decay=0.0, grad_clip=1.0)
        norm = optimizer.update(params, grad, step=1, rate=0.1)
        assert norm == pytest.approx(size * math.sqrt(shape.size), rel=1e-4)
        moved.append(params)
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-5)
    np.testing.assert_allclose(moved[0], -0.1, rtol=1e-3)


def test_a_checkpoint_carries_everything(text_folder: Path, tmp_path: Path) -> None:
    first = trainer_on(text_folder)
    for _ in range(5):
        first.advance()
    files.save_checkpoint(tmp_path, first)
    second = trainer_on(text_folder)
    assert files.load_checkpoint(tmp_path, second)
    assert second.step == 5
    for trainer in (first, second):
        for _ in range(5):
            trainer.advance()
    np.testing.assert_array_equal(first.model.flat, second.model.flat)
    np.testing.assert_array_equal(first.optimizer.second, second.optimizer.second)


def test_a_checkpoint_made_from_other_text_is_told(text_folder: Path, tmp_path: Path) -> None:
    trainer = trainer_on(text_folder)
    files.save_checkpoint(tmp_path, trainer)
    (text_folder / "file_00.py").write_text("something else\n" * 20)
    assert not files.load_checkpoint(tmp_path, trainer_on(text_folder))


def test_a_checkpoint_of_another_shape_is_refused(text_folder: Path, tmp_path: Path) -> None:
    files.save_checkpoint(tmp_path, trainer_on(text_folder))
    other = trainer_on(text_folder, SMALL._replace(d_model=64))
    with pytest.raises(files.CheckpointError, match="d_model=32"):
        files.load_checkpoint(tmp_path, other)


@pytest.mark.parametrize("name", ["state.json", "arrays.npz"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"\0\1\2", b"PK\3\4cut", NUMPY_ARRAY])
def test_a_damaged_checkpoint_is_refused_and_named(
    text_folder: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    trainer = trainer_on(text_folder)
    files.save_checkpoint(tmp_path, trainer)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(files.CheckpointError, match="cannot be read"):
        files.load_checkpoint(tmp_path, trainer)


def test_the_finished_model_reads_back_the_same(tmp_path: Path) -> None:
    model = Model(initial(SHAPE, seed=9), SHAPE)
    files.save_model(tmp_path, model)
    np.testing.assert_array_equal(files.load_model(tmp_path).flat, model.flat)
    with np.load(tmp_path / "model.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(SHAPE.layout())
        np.testing.assert_array_equal(arrays["layers.1.up"], model.params["layers.1.up"])


def test_the_safetensors_file_follows_the_format(tmp_path: Path) -> None:
    files.save_model(tmp_path, Model(initial(SHAPE, seed=9), SHAPE))
    data = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "np"}
    assert {name: tuple(entry["shape"]) for name, entry in header.items()} == SHAPE.layout()
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    spans = [entry["data_offsets"] for entry in header.values()]
    assert [begin for begin, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == len(data) - 8 - length == 4 * SHAPE.size


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(files.CheckpointError, match="cannot be read"):
        files.load_model(tmp_path)


def test_writing_is_repeatable_and_safe_to_print() -> None:
    model = Model(initial(SHAPE, seed=9), SHAPE)
    once = generate.write(model, "def ", count=40, temperature=1.0, seed=5)
    assert once == generate.write(model, "def ", count=40, temperature=1.0, seed=5)
    assert once.startswith("def ")
    assert all(character.isprintable() or character in "\n\t" for character in once)
    assert generate.write(model, "", count=0, temperature=1.0, seed=5) == "\n"
