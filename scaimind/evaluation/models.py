"""Finds out what kind of model lies in a folder, and loads it."""

from __future__ import annotations

import json
from pathlib import Path

from scaimind.evaluation.registry import MODELS, Loader, Model, find

CHECKPOINTS = "tiny-lm"  # whose checkpoints carry no config.json


def load(folder: Path) -> Model:
    """The model in a folder; `model_type` of its config.json names the loader.

    Raises:
        ValueError: there is none, or none of a known kind.
    """
    try:
        loader: Loader = find(MODELS, _kind(folder))
        return loader(folder)
    except ImportError as error:
        raise ValueError(f"the model needs a package that is not installed: {error.name}") from None
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"the model cannot be read: {error}") from error


def _kind(folder: Path) -> str:
    config = folder / "config.json"
    if not config.is_file():
        return CHECKPOINTS
    told: object = json.loads(config.read_text())
    kind = told.get("model_type") if isinstance(told, dict) else None
    return kind if isinstance(kind, str) else ""
