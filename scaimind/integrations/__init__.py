"""Bridges from training libraries to the in-job library; each loads its library when used."""

from typing import Any

from scaimind.integrations.huggingface import trainer_callback

__all__ = ["trainer_callback"]


def __getattr__(name: str) -> Any:
    """`TrainerCallback`: the class to hand to a Hugging Face Trainer; needs transformers."""
    if name == "TrainerCallback":
        return trainer_callback()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
