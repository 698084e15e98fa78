"""How values look to people."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from scaimind.cli.text import ago, clean, duration, number, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (7, "7s"),
        (60, "1m"),
        (130, "2m 10s"),
        (3600, "1h"),
        (3605, "1h"),
        (90_000, "1d 1h"),
        (-5, "0s"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("at_s", "text"),
    [(1000, "0s ago"), (880, "2m ago"), (8_300, "in 2h"), (-200_000, "2d ago"), (0, "")],
)
def test_times_are_told_from_now(at_s: int, text: str) -> None:
    assert ago(Timestamp(seconds=at_s), now_s=1000) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (80e9, "80.0 GB"), (2e18, "2000.0 PB")],
)
def test_sizes_are_decimal(count: float, text: str) -> None:
    assert size(count) == text


def test_control_characters_cannot_command_the_terminal() -> None:
    assert clean("a\x1b[2Jb\r\n\x07\u202e") == "a\\x1b[2Jb\\r\\n\\x07\\u202e"
    assert clean("tab\tand é") == "tab\tand é"
    assert clean("\udc80") == "\\udc80"


def test_numbers_have_four_digits() -> None:
    assert number(1.234567) == "1.235"
    assert number(0.000123456) == "0.0001235"
