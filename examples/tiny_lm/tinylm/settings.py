"""Hyperparameters: a map of strings in, checked numbers out, each mistake named."""

import difflib
import math
from collections.abc import Mapping
from typing import NamedTuple


class SettingError(ValueError):
    """A hyperparameter that is unknown, malformed, out of bounds or at odds with another."""


class Settings(NamedTuple):
    """All that shapes a training; the same settings, text and seed give the same weights."""

    steps: int = 1000
    batch_size: int = 16
    context: int = 64
    d_model: int = 128
    layers: int = 2
    heads: int = 4
    learning_rate: float = 3e-3
    warmup_steps: int = 40
    weight_decay: float = 0.05
    grad_clip: float = 1.0
    log_every: int = 10
    validate_every: int = 50
    sample_bytes: int = 400
    seed: int = 1


_BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, 1_000_000),
    "batch_size": (1, 1024),
    "context": (2, 1024),
    "d_model": (8, 1024),
    "layers": (1, 24),
    "heads": (1, 64),
    "learning_rate": (1e-7, 1.0),
    "warmup_steps": (0, 1_000_000),
    "weight_decay": (0.0, 10.0),
    "grad_clip": (1e-6, 1e6),
    "log_every": (1, 1_000_000),
    "validate_every": (1, 1_000_000),
    "sample_bytes": (0, 100_000),
    "seed": (0, 2**32 - 1),
}


def parse(hyperparameters: Mapping[str, str]) -> Settings:
    """Settings from a string map; SettingError names the hyperparameter that is wrong."""
    values = {name: _number(name, text) for name, text in hyperparameters.items()}
    settings = Settings._make((Settings._field_defaults | values).values())
    if settings.d_model % (2 * settings.heads):
        raise SettingError(
            f"hyperparameter d_model must be a multiple of 2 x heads ({2 * settings.heads}),"
            f" got {settings.d_model}"
        )
    return settings


def _number(name: str, text: str) -> int | float:
    if name not in _BOUNDS:
        close = difflib.get_close_matches(name, _BOUNDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(_BOUNDS)}"
        raise SettingError(f"unknown hyperparameter {name!r}: {hint}")
    kind = type(Settings._field_defaults[name])
    low, high = _BOUNDS[name]
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        noun = "a whole number" if kind is int else "a number"
        raise SettingError(
            f"hyperparameter {name} must be {noun} from {low:g} to {high:g}, got {text!r}"
        )
    number: int | float = value
    return number
