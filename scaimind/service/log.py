"""The programs' own log: structured events on standard error, text for people or JSON lines.

A log that cannot be written (its disk is full, its reader is gone) loses lines and stops nobody: the
program is the one that still runs jobs.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog

WORD = re.compile(r"[!#-&(-<>-~]+")  # printable ASCII without spaces, quotes and "="
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}


class _Losing:
    """A text file that lets go of what cannot be written.

    It writes past the file's own buffer: what is left in there would be tried once more at the very
    end, and make the program's exit status 120.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.flush()
            os.write(self._file.fileno(), text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


def plain(logger: object, method: str, event: structlog.types.EventDict) -> str:
    """One line for people, laid out as on a terminal; what is not one plain word stands as Python has it."""
    head = f"{event.pop('timestamp')} [{event.pop('level'):<9}] {event.pop('event')!s:<30}"
    trace = event.pop("exception", "")
    line = f"{head} {' '.join(f'{key}={_word(event[key])}' for key in sorted(event))}".rstrip()
    return f"{line}\n{trace}" if trace else line


def _word(value: object) -> str:
    return value if isinstance(value, str) and WORD.fullmatch(value) else repr(value)


def configure(*, level: str, json: bool) -> None:
    """Sets structlog up for this process; unknown levels mean INFO. Never logs job output."""
    losing = cast(TextIO, _Losing(sys.stderr))
    threshold = LEVELS.get(level.upper(), 20)
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else plain
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=losing),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), stream=losing)
