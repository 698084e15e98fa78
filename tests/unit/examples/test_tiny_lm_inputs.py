"""What the example takes in: hyperparameters, text, and the job files that submit it."""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import protovalidate
import pytest
import yaml
from google.protobuf import json_format
from tinylm import settings, text
from tinylm.settings import SettingError, Settings

from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest
from tests.unit.examples.conftest import EXAMPLE


def test_no_hyperparameters_give_the_defaults() -> None:
    assert settings.parse({}) == Settings()


def test_hyperparameters_are_read_from_strings() -> None:
    chosen = settings.parse({"steps": "20", "learning_rate": "1e-3", "d_model": "64"})
    assert chosen == Settings(steps=20, learning_rate=1e-3, d_model=64)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("learning_rat", "1", "unknown hyperparameter 'learning_rat': did you mean learning_rate"),
        ("zzz", "1", "unknown hyperparameter 'zzz': known are steps"),
        ("learning_rate", "fast", "learning_rate must be a number from 1e-07 to 1, got 'fast'"),
        ("learning_rate", "nan", "learning_rate must be a number"),
        ("steps", "0", "steps must be a whole number from 1"),
        ("steps", "1.5", "steps must be a whole number"),
        ("steps", "", "steps must be a whole number"),
        ("heads", "5", "d_model must be a multiple of 2 x heads"),
        ("seed", "9" * 5000, "seed must be a whole number"),
    ],
)
def test_a_bad_hyperparameter_is_named(name: str, value: str, problem: str) -> None:
    with pytest.raises(SettingError, match=problem):
        settings.parse({name: value})


def test_every_setting_has_bounds_that_hold_its_default() -> None:
    defaults = {name: str(value) for name, value in Settings()._asdict().items()}
    assert settings.parse(defaults) == Settings()


def test_text_is_split_between_files_and_the_same_each_time(text_folder: Path) -> None:
    corpus = text.load(text_folder, seed=1, context=16)
    assert corpus.files == 40
    assert 0.01 < len(corpus.validation) / len(corpus.train) < 0.1
    assert corpus.validation.tobytes().startswith(b"def name_")
    again = text.load(text_folder, seed=1, context=16)
    assert corpus.digest == again.digest
    np.testing.assert_array_equal(corpus.train, again.train)
    assert corpus.digest != text.load(text_folder, seed=2, context=16).digest


def test_binary_hidden_and_installed_files_are_left_out(text_folder: Path) -> None:
    before = text.load(text_folder, seed=1, context=16)
    (text_folder / "image.bin").write_bytes(b"abc\0def" * 100)
    (text_folder / ".hidden").write_text("hidden" * 100)
    (text_folder / "site-packages").mkdir()
    (text_folder / "site-packages" / "module.py").write_text("installed" * 100)
    (text_folder / "dangling").symlink_to(text_folder / "nothing")
    after = text.load(text_folder, seed=1, context=16)
    assert after.files == before.files


def test_one_file_is_text_too(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("All happy families are alike. " * 50)
    corpus = text.load(path, seed=1, context=16)
    assert len(corpus.train) + len(corpus.validation) == path.stat().st_size


@pytest.mark.parametrize("content", ["", "too short"])
def test_too_little_text_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "short.txt").write_text(content)
    with pytest.raises(ValueError, match="too few to learn from"):
        text.load(tmp_path, seed=1, context=16)


def test_text_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_TEXT_BYTES", 5000)
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("x" * 2000)
    corpus = text.load(tmp_path, seed=1, context=16)
    assert len(corpus.train) + len(corpus.validation) == 5000


def test_windows_hold_each_byte_and_the_one_after_it() -> None:
    tokens = np.arange(200, dtype=np.uint8)
    inputs, targets = text.windows(tokens, key=(1, 5), count=7, context=16)
    assert inputs.shape == targets.shape == (7, 16)
    np.testing.assert_array_equal(inputs + 1, targets)
    again, _ = text.windows(tokens, key=(1, 5), count=7, context=16)
    other, _ = text.windows(tokens, key=(1, 6), count=7, context=16)
    np.testing.assert_array_equal(inputs, again)
    assert not np.array_equal(inputs, other)


def load_jobs() -> tuple[dict[str, Any], dict[str, Any]]:
    values = {"JOB_DIR": str(EXAMPLE), "PYTHON_STDLIB": str(text.standard_library())}
    bodies = [
        string.Template((EXAMPLE / name).read_text()).substitute(values)
        for name in ("job.json", "job.yaml")
    ]
    return json.loads(bodies[0]), yaml.safe_load(bodies[1])


def test_both_job_files_are_the_same_valid_submit_body() -> None:
    from_json, from_yaml = load_jobs()
    framework = from_yaml["training_config"]["framework"]
    assert framework["custom_script_path"] == "train.py"
    framework["custom_script_path"] = str(EXAMPLE / "train.py")
    assert from_json == from_yaml
    request = json_format.ParseDict(from_json, SubmitJobRequest())
    protovalidate.validate(request)


def test_the_job_file_asks_for_what_the_example_does_by_default() -> None:
    job, _ = load_jobs()
    assert settings.parse(job["training_config"]["hyperparameters"]) == Settings()
