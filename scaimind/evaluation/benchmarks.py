"""The package's own benchmarks, over samples `{"prompt", "completion"}` or `{"text"}`.

Parameters `prompt_field`, `completion_field` and `text_field` name the fields where they are others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from scaimind.evaluation.registry import Model, Sample, Scored

MAX_NEW_TOKENS = 4096


def exact_match(
    model: Model, samples: Iterable[Sample], parameters: Mapping[str, str]
) -> dict[str, float]:
    """Share of the samples whose completion it writes, up to space at both ends.

    Parameters: `max_new_tokens` (default: as long as the completion), `temperature` (0), `seed` (1).
    """
    most = _number(parameters, "max_new_tokens", 0, high=MAX_NEW_TOKENS)
    temperature = _number(parameters, "temperature", 0.0, high=100.0)
    seed = _number(parameters, "seed", 1, high=2**31)
    hits = count = 0
    for number, (prompt, wanted) in enumerate(_pairs(samples, parameters), 1):
        if not wanted.strip():
            raise ValueError(f"sample {number} has no completion to match")
        written = model.complete(
            prompt,
            max_new_tokens=int(most) or len(wanted.encode()),
            temperature=temperature,
            seed=int(seed),
        )
        hits += written.strip() == wanted.strip()
        count += 1
    return {"exact_match": hits / count if count else math.nan}


def perplexity(
    model: Model, samples: Iterable[Sample], parameters: Mapping[str, str]
) -> dict[str, float]:
    """`loss` in nats per token, and `perplexity`, e to that."""
    total = _total(model, samples, parameters)
    loss = total.loss / total.tokens if total.tokens else math.nan
    return {"perplexity": math.exp(min(loss, 700.0)), "loss": loss}


def token_accuracy(
    model: Model, samples: Iterable[Sample], parameters: Mapping[str, str]
) -> dict[str, float]:
    """Share of the tokens that it holds the likeliest where they stand."""
    total = _total(model, samples, parameters)
    return {"token_accuracy": total.hits / total.tokens if total.tokens else math.nan}


def _total(model: Model, samples: Iterable[Sample], parameters: Mapping[str, str]) -> Scored:
    tokens, hits, loss = 0, 0, 0.0
    for prompt, text in _pairs(samples, parameters):
        scored = model.score(prompt, text)
        tokens, hits, loss = tokens + scored.tokens, hits + scored.hits, loss + scored.loss
    return Scored(tokens, hits, loss)


def _pairs(samples: Iterable[Sample], parameters: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Prompt ("" for none) and the text that follows it. ValueError names a sample without."""
    fields = {
        name: parameters.get(f"{name}_field", name) for name in ("prompt", "completion", "text")
    }
    for number, sample in enumerate(samples, 1):
        prompt = sample.get(fields["prompt"], "")
        text = sample.get(fields["completion"], sample.get(fields["text"]))
        if not isinstance(prompt, str) or not isinstance(text, str):
            wanted = f"{fields['completion']!r} or {fields['text']!r}"
            raise ValueError(f"sample {number} has no text {wanted}")
        yield prompt, text


def _number(parameters: Mapping[str, str], name: str, default: float, *, high: float) -> float:
    text = parameters.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 <= value <= high:
        raise ValueError(f"{name} must be a number from 0 to {high:g}, got {text!r}")
    return value
