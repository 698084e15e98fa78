"""Names of GPUs: the short type that jobs ask for, from the maker's name of the model."""

from __future__ import annotations

import re

GIB = 1024**3

# Memory of the types that can be simulated.
MEMORY_BYTES = {
    name: gib * GIB
    for name, gib in {
        "A10": 24,
        "A100": 80,
        "A40": 48,
        "B200": 180,
        "GB200": 186,
        "GH200": 96,
        "H100": 80,
        "H200": 141,
        "L4": 24,
        "L40S": 48,
        "RTX4090": 24,
        "RTX5090": 32,
        "T4": 16,
        "V100": 32,
    }.items()
}

_BRANDS = {"NVIDIA", "TESLA", "GEFORCE", "QUADRO", "GRAPHICS", "DEVICE"}
_DATA_CENTRE = re.compile(r"(?:GH|GB|[HABLVTPK])\d{1,4}[A-Z]{0,2}")
_EDITIONS = {"TI", "SUPER", "ADA", "D"}
_MAX_CHARS = 32


def short_type(model: str) -> str:
    """The short type of a model: `NVIDIA H100 80GB HBM3` is an `H100`.

    Models that follow no known pattern keep their name, in capitals without spaces; `UNKNOWN` for
    none at all.
    """
    words = [w for w in re.split(r"[^A-Z0-9]+", model.upper()) if w and w not in _BRANDS]
    for i, word in enumerate(words):
        if _DATA_CENTRE.fullmatch(word):
            return word
        if word in ("RTX", "GTX") and i + 1 < len(words):
            return _consumer(words[i:])
    return "".join(words)[:_MAX_CHARS] or "UNKNOWN"


def _consumer(words: list[str]) -> str:
    if _DATA_CENTRE.fullmatch(words[1]):  # the RTX A6000 is an A6000 to everybody
        return words[1]
    name = words[:2]
    for word in words[2:]:
        if not (word in _EDITIONS or (word.isdecimal() and not name[-1].isdecimal())):
            break
        name.append(word)
    return "".join(name)[:_MAX_CHARS]
