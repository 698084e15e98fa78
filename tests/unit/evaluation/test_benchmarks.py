"""What the benchmarks count, with a model that says what it is told to."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from scaimind.evaluation import benchmarks, registry
from scaimind.evaluation.registry import Scored


class Parrot:
    """Writes the same thing after every prompt; foretells half of the tokens, each at one nat."""

    def __init__(self, says: str = "") -> None:
        self.says = says
        self.asked: list[tuple[str, int, float, int]] = []

    def score(self, prompt: str, text: str) -> Scored:
        return Scored(len(text), len(text) // 2, float(len(text)))

    def complete(self, prompt: str, *, max_new_tokens: int, temperature: float, seed: int) -> str:
        self.asked.append((prompt, max_new_tokens, temperature, seed))
        return self.says


def test_exact_match_is_the_share_of_completions_that_were_written() -> None:
    model = Parrot(" four \n")
    samples = [{"prompt": "2+2=", "completion": "four"}, {"prompt": "1+1=", "completion": "two"}]
    assert benchmarks.exact_match(model, samples, {}) == {"exact_match": 0.5}
    assert model.asked == [("2+2=", 4, 0.0, 1), ("1+1=", 3, 0.0, 1)]
    given = {"max_new_tokens": "9", "temperature": "0.5", "seed": "3", "completion_field": "a"}
    benchmarks.exact_match(model, [{"prompt": "x", "a": "y"}], given)
    assert model.asked[-1] == ("x", 9, 0.5, 3)


def test_perplexity_and_token_accuracy_are_over_all_tokens() -> None:
    samples = [{"text": "abcd"}, {"prompt": "x", "completion": "ef"}]
    scores = benchmarks.perplexity(Parrot(), samples, {})
    assert scores == {"perplexity": pytest.approx(math.e), "loss": 1.0}
    assert benchmarks.token_accuracy(Parrot(), samples, {}) == {"token_accuracy": 0.5}


def test_nothing_to_measure_is_no_number() -> None:
    for name in ("exact_match", "perplexity", "token_accuracy"):
        scores = registry.find(registry.BENCHMARKS, name)(Parrot(), [], {})
        assert any(math.isnan(value) for value in scores.values())


@pytest.mark.parametrize(
    ("samples", "parameters", "says"),
    [
        ([{"prompt": "x"}], {}, "sample 1 has no text 'completion' or 'text'"),
        ([{"text": 1}], {}, "sample 1 has no text"),
        ([{"text": " "}], {}, "sample 1 has no completion to match"),
        ([], {"temperature": "hot"}, "temperature must be a number from 0 to 100, got 'hot'"),
        ([], {"max_new_tokens": "-1"}, "max_new_tokens must be"),
        ([], {"seed": "nan"}, "seed must be"),
    ],
)
def test_what_cannot_be_measured_is_named(
    samples: list[Mapping[str, object]], parameters: Mapping[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        benchmarks.exact_match(Parrot(), samples, parameters)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LookupError, match="exact_match, perplexity, token_accuracy"):
        registry.find(registry.BENCHMARKS, "mmlu")
