"""What was measured is read by the next agent as it was, whatever has become of the file meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.telemetry.kept_samples import MOST_LINES, KeptSamples
from node_agent.telemetry.probe import Reading
from node_agent.telemetry.samples import Host, Sample

HOST = Host(25.0, 10, 20, 30, 40)
READING = Reading(50.0, 8 << 30, throttle_reasons=("SW_POWER_CAP",), xids=(13, 79), fault="lost")


def samples(count: int) -> list[Sample]:
    return [Sample(number, HOST, {"GPU-1": READING, "GPU-2": Reading()}) for number in range(count)]


def kept(path: Path, given: list[Sample]) -> None:
    room = KeptSamples(path)
    room.load()
    for sample in given:
        room.put(sample)


def test_they_are_read_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "telemetry"
    assert KeptSamples(path).load() == []
    kept(path, samples(3))
    assert KeptSamples(path).load() == samples(3)


def test_the_next_agent_keeps_those_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "telemetry"
    kept(path, samples(3))
    kept(path, samples(5)[3:])
    assert KeptSamples(path).load() == samples(5)


def test_the_newest_are_kept_and_the_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "telemetry"
    kept(path, samples(5 * MOST_LINES))
    found = KeptSamples(path).load()
    assert found == samples(5 * MOST_LINES)[-len(found) :]
    assert len(found) == MOST_LINES // 2
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    "junk",
    ["", "{", "[]", "null", '{"measured_at_ms": 1}', '{"measured_at_ms": 1, "host": 3}', "\x00"],
)
def test_a_line_that_is_no_sample_is_left_out(tmp_path: Path, junk: str) -> None:
    path = tmp_path / "telemetry"
    kept(path, samples(2))
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{junk}\n{second[: len(second) // 2]}\n")
    assert KeptSamples(path).load() == samples(1)


def test_a_disk_that_refuses_costs_the_record_alone(tmp_path: Path) -> None:
    (tmp_path / "telemetry").mkdir()
    kept(tmp_path / "telemetry", samples(3))
    assert KeptSamples(tmp_path / "telemetry").load() == []
