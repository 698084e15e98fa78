"""Which level a line names."""

from __future__ import annotations

import time

import pytest

from node_agent.spool.levels import level_of, levels_of
from scaimind.v1.stream_pb2 import CRITICAL, DEBUG, ERROR, INFO, WARNING, LogLevel


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("ERROR something", ERROR),
        ("ERROR", ERROR),
        ("error: no such file", ERROR),
        ("[WARNING] disk", WARNING),
        ("[warning  ] disk", WARNING),
        ("WARNING:root:careful", WARNING),
        ("WARN  careful", WARNING),
        ("DEBUG:x:details", DEBUG),
        ("CRITICAL out", CRITICAL),
        ("FATAL: out", CRITICAL),
        ("  ERROR indented", ERROR),
        ("2026-11-20 12:00:00,123 ERROR module: text", ERROR),
        ("2026-11-20 12:00:00,123 - root - WARNING - text", WARNING),
        ("2026-11-20 12:00:00.123 | ERROR    | mod:fn:1 - text", ERROR),
        ("2026-11-20T12:00:00.1Z [error    ] event key=1", ERROR),
        ("2026-11-20T12:00:00+01:00 WARN text", WARNING),
        ("[2026-11-20 12:00:00,123][DEBUG] text", DEBUG),
        ("11/20/2026 12:00:00 - WARNING - __main__ - text", WARNING),
        ("12:00:00 CRITICAL text", CRITICAL),
        ("[WARNING|trainer.py:803] 2026-11-20 12:00:00 >> text", WARNING),
        (r"\x1b[33mWARNING\x1b[0m coloured", WARNING),
        ('{"level": "error", "msg": "x"}', ERROR),
        ('{"levelname":"WARNING"}', WARNING),
        ('{"severity":"CRITICAL"}', CRITICAL),
    ],
)
def test_a_line_that_names_its_level_has_it(line: str, level: LogLevel.ValueType) -> None:
    assert level_of(line) == level


@pytest.mark.parametrize(
    "line",
    [
        "",
        "training begins",
        "INFO all is well",
        "Error rate is 0.1",
        "debug build",
        "no ERROR here",
        "ERRORS: 0",
        "ERROR_RATE 0.5",
        "ValueError: bad",
        "2026-11-20 12:00:00 INFO no ERROR",
        '{"level": 40}',
        '{"message": "error"}',
        '{"level": "error"',
        "{" * 5000 + "error",
        '{"a":' * 3000 + '"error"',
    ],
)
def test_any_other_line_is_info(line: str) -> None:
    assert level_of(line) == INFO


def test_levels_of_many_lines_are_those_of_each() -> None:
    lines = ["one", "ERROR two", "three"]
    assert levels_of("\n".join(lines), lines) == [INFO, ERROR, INFO]
    assert levels_of("one\ntwo", ["one", "two"]) == [INFO, INFO]


def test_hostile_lines_take_no_longer_than_others() -> None:
    lines = [
        "1:1" + " 1" * 30_000 + "error",
        "1.1" + "-" * 60_000,
        "[" * 60_000,
        "1/1 " + "a" * 60_000,
    ]
    started_s = time.process_time()
    for line in lines * 50:
        level_of(line)
    assert time.process_time() - started_s < 0.5
