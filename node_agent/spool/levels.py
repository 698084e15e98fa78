"""The level of a line: INFO unless the line names another one itself.

A line names its level by a leading word, alone or after a timestamp and a logger's name in one of
the common formats, or by a key of the JSON object that it is. Most lines name none, so whole
chunks are first searched for the words; only where one occurs are lines looked at one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from scaimind.v1 import stream_pb2

Level: TypeAlias = stream_pb2.LogLevel.ValueType

LEVELS: dict[str, Level] = {
    "trace": stream_pb2.DEBUG,
    "debug": stream_pb2.DEBUG,
    "info": stream_pb2.INFO,
    "notice": stream_pb2.INFO,
    "warn": stream_pb2.WARNING,
    "warning": stream_pb2.WARNING,
    "error": stream_pb2.ERROR,
    "critical": stream_pb2.CRITICAL,
    "fatal": stream_pb2.CRITICAL,
}
_TELLING = ("debug", "warn", "error", "critical", "fatal", "trace")
_JSON_KEYS = ("level", "levelname", "severity")
_MAX_JSON_CHARS = 16 * 1024

# A coloured line begins with escape sequences, which are escaped text by the time it comes here.
# Quantifiers are possessive: a hostile line must not make the match try again and again.
_GAP = r"(?:\\x1b\[[0-9;]{0,16}+m|\s){0,8}+"
_TIMESTAMP = r"\[?\d{1,4}+[-/:.]\d{1,2}+(?:[-/:.,T+ ]{0,2}+\d{1,9}+){0,12}+Z?\]?"
_NAME = r"(?:[\w.]{1,64}+ (?:- |\| ?))?"
_HEAD = re.compile(
    rf"{_GAP}(?:{_TIMESTAMP}[\s|:\[\]-]{{0,8}}+{_NAME})?{_GAP}[\[(<]?{_GAP}"
    r"(?P<word>[A-Za-z]{4,8})(?![A-Za-z0-9_])(?P<mark>\s{0,8}(?:\\x1b\[[0-9;]{0,16}m)?[:\]|>)])?"
)


def levels_of(text: str, lines: Sequence[str]) -> list[Level]:
    """The level of each of `lines`; `text` is all of them in one string."""
    lowered = text.lower()
    if not any(word in lowered for word in _TELLING):
        return [stream_pb2.INFO] * len(lines)
    return [level_of(line) for line in lines]


def level_of(line: str) -> Level:
    """The level that one line names, or INFO.

    A word in capitals counts by itself; in other spellings ("Error: …", "[warning]") only with
    the mark that a logger sets after it, because prose begins with such words as well.
    """
    if line.startswith("{"):
        return _json_level(line)
    match = _HEAD.match(line)
    if match is None:
        return stream_pb2.INFO
    word = match["word"]
    if not (word.isupper() or match["mark"]):
        return stream_pb2.INFO
    return LEVELS.get(word.lower(), stream_pb2.INFO)


def _json_level(line: str) -> Level:
    if len(line) > _MAX_JSON_CHARS:
        return stream_pb2.INFO
    try:
        document = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return stream_pb2.INFO
    for key in _JSON_KEYS:
        name = document.get(key)
        if isinstance(name, str):
            return LEVELS.get(name.lower(), stream_pb2.INFO)
    return stream_pb2.INFO
