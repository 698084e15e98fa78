"""Metrics in plain output."""

from __future__ import annotations

import math

import pytest

from node_agent.spool.metrics_lines import MetricsLine, parse


def test_a_trainers_line_becomes_metrics() -> None:
    line = "{'loss': 0.5, 'grad_norm': 1.25, 'learning_rate': 5e-05, 'epoch': 1.0}"
    assert parse(line) == MetricsLine(
        None, 1.0, {"loss": 0.5, "grad_norm": 1.25, "learning_rate": 5e-05}
    )


def test_a_step_is_taken_from_the_line_where_it_has_one() -> None:
    assert parse("{'loss': 1, 'step': 7}") == MetricsLine(7, None, {"loss": 1.0})
    assert parse("{'eval_loss': 2.0, 'global_step': 9}") == MetricsLine(9, None, {"eval_loss": 2.0})


def test_numbers_may_be_spelled_quoted_or_wrapped() -> None:
    parsed = parse("{'loss': nan, 'a': '0.25', 'b': np.float64(3.5), 'c': -inf, 'epoch': '0.1'}")
    assert parsed is not None
    assert math.isnan(parsed.values["loss"])
    assert parsed.values["a"] == 0.25
    assert parsed.values["b"] == 3.5
    assert parsed.values["c"] == -math.inf
    assert parsed.epoch == 0.1


def test_values_that_are_no_numbers_are_left_out() -> None:
    assert parse("{'loss': 1.5, 'note': 'fine', 'ok': True}") == MetricsLine(
        None, None, {"loss": 1.5}
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "loss: 0.5",
        "{'loss': 0.5",
        "{'hidden_size': 128, 'layers': 2}",
        "{'loss': {'a': 1}}",
        "{'epoch': 1.0}",
        "{'loss': 'high'}",
        "{'" + "loss" * 2000 + "': 1}",
        "{'loss': 1..2}",
        "{'" * 2000 + "}",
    ],
)
def test_other_lines_are_no_metrics(line: str) -> None:
    assert parse(line) is None
