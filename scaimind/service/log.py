"""The programs' own log: structured events on standard error, text for people or JSON lines.

A log that cannot be written (its disk is full, its reader is gone) loses lines and stops nobody: the
program is the one that still runs jobs.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog

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


def configure(*, level: str, json: bool) -> None:
    """Sets structlog up for this process; unknown levels mean INFO. Never logs job output."""
    losing = cast(TextIO, _Losing(sys.stderr))
    threshold = LEVELS.get(level.upper(), 20)
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
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
        logger_factory=structlog.PrintLoggerFactory(file=losing),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), stream=losing)
