"""The newest samples on disk, so that an agent that is started again knows what was measured before.

A failure may come between the end of one agent and the start of the next: the minute before it was measured by
the first. Each sample is a line of JSON at the end of a file, which is made anew from the newest when it has
twice as many lines as are wanted. Nothing is flushed: what a power cut loses, its ranks have not outlived.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import structlog

from node_agent.files import replace_file
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.samples import Host, Sample

MOST_LINES = 64  # half of them, the newest, are wanted
MOST_BYTES = 16 << 20

_READING = frozenset(field.name for field in fields(Reading))
_HOST = frozenset(field.name for field in fields(Host))
_log = structlog.get_logger()


class KeptSamples:
    """The file of one agent. Its methods block briefly; a disk that refuses costs the record, no more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []  # that are wanted
        self._written = MOST_LINES  # lines of the file; the first put makes it anew

    def load(self) -> list[Sample]:
        """What an earlier agent kept, oldest first; what cannot be read is left out."""
        try:
            if self._path.stat().st_size > MOST_BYTES:
                return []
            text = self._path.read_text("utf-8", "replace")
        except OSError:
            return []
        found = {
            line: sample for line in text.splitlines() if (sample := _sample(line)) is not None
        }
        self._lines = [*found][-MOST_LINES // 2 :]
        return [found[line] for line in self._lines]

    def put(self, sample: Sample) -> None:
        """Keeps one more."""
        line = json.dumps(asdict(sample), separators=(",", ":"))
        self._lines = [*self._lines, line][-MOST_LINES // 2 :]
        try:
            if self._written >= MOST_LINES:
                replace_file(self._path, _text(self._lines))
                self._written = len(self._lines)
            else:
                with self._path.open("ab") as file:
                    file.write(_text((line,)))
                self._written += 1
        except OSError as error:
            _log.debug("sample_not_kept", reason=error.strerror)


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _sample(line: str) -> Sample | None:
    """The sample of a line; None for one that was cut off, or that another version wrote."""
    try:
        told: dict[str, Any] = json.loads(line)
        return Sample(
            measured_at_ms=int(told["measured_at_ms"]),
            host=Host(**{name: told["host"][name] for name in _HOST}),
            readings={str(id): _reading(one) for id, one in told["readings"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _reading(told: dict[str, Any]) -> Reading:
    found = {name: value for name, value in told.items() if name in _READING}
    for name in ("throttle_reasons", "xids"):
        found[name] = tuple(found.get(name, ()))
    return Reading(**found)
