"""Benchmarks and models by name: those of this package, and those that others add by entry point.

A benchmark is a function of (model, samples, parameters) that answers scores by name. The entry points'
groups are `scaimind.benchmarks` and `scaimind.models`; a package that adds some is installed on the nodes
and beside the coordinator, which refuses unknown names when an evaluation is submitted. Listing the names
imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple, Protocol

BENCHMARKS, MODELS = "scaimind.benchmarks", "scaimind.models"
OWN = {
    BENCHMARKS: {
        name: f"scaimind.evaluation.benchmarks:{name}"
        for name in ("exact_match", "perplexity", "token_accuracy")
    },
    MODELS: {"tiny-lm": "scaimind.evaluation.tiny_lm:load"},
}


class Scored(NamedTuple):
    """How well a model foretells a text."""

    tokens: int
    hits: int  # of them, those that it holds the likeliest
    loss: float  # sum of the tokens' negative log-likelihoods, in nats


class Model(Protocol):
    """A language model as benchmarks see it."""

    def score(self, prompt: str, text: str) -> Scored:
        """How well it foretells `text` after `prompt` ("" for none)."""

    def complete(self, prompt: str, *, max_new_tokens: int, temperature: float, seed: int) -> str:
        """What it writes after `prompt`; temperature 0 takes the likeliest token each time."""


Sample = Mapping[str, Any]
Benchmark = Callable[[Model, Iterable[Sample], Mapping[str, str]], Mapping[str, float]]
Loader = Callable[[Path], Model]


def names(group: str) -> list[str]:
    """Names that are known in a group, sorted."""
    return sorted({*OWN[group], *(one.name for one in entry_points(group=group))})


def needs_dataset(benchmark: str) -> bool:
    """Whether a benchmark cannot do without a data set; those of others may bring one."""
    return benchmark in OWN[BENCHMARKS]


def find(group: str, name: str) -> Any:
    """What a name stands for; this package's own cannot be replaced.

    Raises:
        LookupError: no such name. Importing it may raise whatever it raises.
    """
    if name in OWN[group]:
        module, _, attribute = OWN[group][name].partition(":")
        return getattr(import_module(module), attribute)
    for one in entry_points(group=group, name=name):
        return one.load()
    raise LookupError(f"{name!r} is not known; known are {', '.join(names(group))}")
