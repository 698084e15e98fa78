"""The events file: whole lines, valid JSON, bounded, and never the death of a training."""

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaimind.job.events import MAX_LINE_BYTES, EventFile, as_number, as_step


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_an_event_is_one_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventFile(path).write({"event": "log", "message": "two\nlines, grün"})
    assert path.read_bytes().count(b"\n") == 1
    assert lines_of(path) == [{"event": "log", "message": "two\nlines, grün"}]


def test_events_are_added_to_those_already_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for number in range(3):
        EventFile(path).write({"event": "log", "number": number})
    assert [line["number"] for line in lines_of(path)] == [0, 1, 2]


def test_text_that_is_not_unicode_is_replaced_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventFile(path).write({"event": "log", "message": "broken \ud800"})
    assert lines_of(path) == [{"event": "log", "message": "broken ?"}]


def test_lines_of_many_threads_and_a_forked_child_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = EventFile(path)
    text = "x" * 5000
    child = os.fork()
    if child == 0:
        for number in range(100):
            file.write({"event": "log", "writer": "child", "number": number, "text": text})
        os._exit(0)

    def write(writer: int) -> None:
        for number in range(100):
            file.write({"event": "log", "writer": writer, "number": number, "text": text})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitpid(child, 0)[1] == 0
    seen: dict[Any, list[int]] = {}
    for line in lines_of(path):
        assert line["text"] == text
        seen.setdefault(line["writer"], []).append(line["number"])
    assert seen == {writer: list(range(100)) for writer in [0, 1, 2, 3, "child"]}


def test_a_line_of_exactly_the_limit_passes_and_one_more_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = EventFile(path)
    empty = len(b'{"event":"log","message":""}\n')
    file.write({"event": "log", "message": "x" * (MAX_LINE_BYTES - empty)})
    assert path.stat().st_size == MAX_LINE_BYTES
    with pytest.raises(ValueError, match="65537 bytes is over the limit of 65536"):
        file.write({"event": "log", "message": "x" * (MAX_LINE_BYTES - empty + 1)})
    assert path.stat().st_size == MAX_LINE_BYTES


def test_without_a_file_events_go_nowhere_but_are_still_checked() -> None:
    file = EventFile(None)
    file.write({"event": "done"})
    with pytest.raises(ValueError, match="limit"):
        file.write({"event": "log", "message": "x" * MAX_LINE_BYTES})


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/at/all/events.jsonl"])
def test_a_file_that_cannot_be_written_is_said_once_and_survived(
    path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = EventFile(Path(path))
    for _ in range(3):
        file.write({"event": "done"})
    warning = capfd.readouterr().err
    assert warning.count("events cannot be written, training goes on") == 1


_CUT_LINE = """
import resource, sys
from pathlib import Path
from scaimind.job.events import EventFile
file = EventFile(Path(sys.argv[1]))
file.write({"event": "first"})
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (30, hard))
file.write({"event": "cut", "text": "x" * 100})
file.write({"event": "lost"})
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
file.write({"event": "after"})
file.write({"event": "last"})
"""


def test_a_line_cut_by_a_full_disk_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", _CUT_LINE, str(path)], capture_output=True, text=True, check=True
    )
    lines = path.read_text().splitlines()
    assert [lines[0], *lines[2:]] == ['{"event":"first"}', '{"event":"after"}', '{"event":"last"}']
    assert done.stderr.count("events cannot be written") == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        (True, 1.0),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
        (np.float32("nan"), "NaN"),
        (np.array(2.5), 2.5),
    ],
)
def test_numbers_of_any_kind_become_json_numbers(value: Any, expected: float | str) -> None:
    assert as_number("loss", value) == expected


@pytest.mark.parametrize("value", ["0.5", None, [1.0], 1j, np.array([1.0, 2.0]), 10**400, b"1"])
def test_what_is_not_one_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match="'loss' must be"):
        as_number("'loss'", value)


@given(st.floats())
def test_every_double_survives_the_way_through_json(number: float) -> None:
    back = float(json.loads(json.dumps(as_number("x", number), allow_nan=False)))
    assert back == number or (math.isnan(back) and math.isnan(number))


@pytest.mark.parametrize("value", [-1, 2**63])
def test_a_step_out_of_bounds_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="step must lie between"):
        as_step(value)


def test_a_step_is_any_integer_and_nothing_else() -> None:
    assert as_step(np.int32(5)) == 5
    wrong: Any = 5.0
    with pytest.raises(TypeError):
        as_step(wrong)
