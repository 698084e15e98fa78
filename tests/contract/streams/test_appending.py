"""Each byte of a source is taken once, whatever is sent how often."""

import asyncio
import math
from dataclasses import replace

import pytest

from coordinator.streams.protocol import (
    Append,
    Bounds,
    Latest,
    Line,
    Streams,
    StreamsUnavailable,
)
from tests.contract.streams.conftest import LOG_BYTES_MAX, Home
from tests.contract.streams.samples import JOB, all_lines, batch, point, points, source, texts


async def test_a_line_has_its_position_and_where_it_comes_from(streams: Streams) -> None:
    of = source(attempt=2, rank=3, channel=2)
    assert await streams.append([batch(0, ["a", "b"], levels=[1, 4], of=of)]) == [4]
    lines, looked = await streams.lines(JOB, after=0, limit=10)
    assert looked == 2
    assert lines[1] == Line(
        position=2,
        text="b",
        level=4,
        at_ms=1004,
        rank=3,
        node_id="node-3",
        attempt=2,
        channel=2,
    )
    assert [line.position for line in lines] == [1, 2]


async def test_a_batch_that_comes_again_is_dropped(streams: Streams) -> None:
    one = batch(0, ["a", "b"])
    assert await streams.append([one, one]) == [4, 4]
    assert await streams.append([one]) == [4]
    assert await texts(streams) == ["a", "b"]


async def test_a_batch_that_overlaps_is_cut_where_it_is_known(streams: Streams) -> None:
    await streams.append([batch(0, ["a", "b"])])
    assert await streams.append([batch(2, ["b", "c", "d"])]) == [8]
    assert await texts(streams) == ["a", "b", "c", "d"]


async def test_a_batch_beyond_what_is_known_is_not_taken(streams: Streams) -> None:
    await streams.append([batch(0, ["a"])])
    assert await streams.append([batch(4, ["c"]), batch(2, ["b"]), batch(4, ["c"])]) == [2, 4, 6]
    assert await texts(streams) == ["a", "b", "c"]


async def test_a_lost_part_takes_one_position(streams: Streams) -> None:
    await streams.append([batch(0, ["a"])])
    assert await streams.append([batch(100, ["x"], gap_before=True, levels=[1])]) == [102]
    lines = await all_lines(streams)
    assert [(line.position, line.text) for line in lines] == [(1, "a"), (2, None), (3, "x")]
    only_errors, _ = await streams.lines(JOB, after=0, limit=10, min_level=5)
    assert only_errors == [lines[1]]


async def test_a_lost_part_that_is_told_again_is_no_second_gap(streams: Streams) -> None:
    await streams.append([batch(100, ["x"], gap_before=True)])
    assert await streams.append([batch(100, ["x", "y"], gap_before=True)]) == [104]
    assert await streams.append([batch(104, ["z"], gap_before=True)]) == [106]
    assert await texts(streams) == [None, "x", "y", "z"]


async def test_a_lost_part_with_nothing_after_it_is_a_gap(streams: Streams) -> None:
    assert await streams.append([batch(50, gap_before=True, end=60)]) == [60]
    assert await texts(streams) == [None]


async def test_bytes_without_entries_are_acknowledged(streams: Streams) -> None:
    assert await streams.append([batch(0, end=500)]) == [500]
    assert await streams.append([batch(500, ["a"])]) == [502]
    assert await texts(streams) == ["a"]


async def test_positions_rise_by_one_over_all_sources(streams: Streams) -> None:
    sources = [
        source(attempt=attempt, rank=rank, channel=channel)
        for attempt in (1, 2)
        for rank in (0, 1)
        for channel in (1, 2)
    ]
    for begin in (0, 4):
        await streams.append([batch(begin, ["a", "b"], of=of) for of in sources])
    assert [line.position for line in await all_lines(streams)] == list(range(1, 33))


async def test_jobs_do_not_mix(streams: Streams) -> None:
    await streams.append([batch(0, ["a"]), batch(0, ["b"], of=source("job_2"))])
    assert await texts(streams) == ["a"]
    assert await texts(streams, "job_2") == ["b"]


async def test_many_callers_at_once_lose_nothing(streams: Streams) -> None:
    async def push(rank: int) -> None:
        of = source(rank=rank)
        for number in range(20):
            assert await streams.append([batch(2 * number, ["x"], of=of)]) == [2 * number + 2]

    await asyncio.gather(*(push(rank) for rank in range(20)))
    lines = await all_lines(streams)
    assert [line.position for line in lines] == list(range(1, 401))


@pytest.mark.parametrize(
    "text",
    ["", " ", "x" * 65536, "ünï 🐍 \u2028 \x00 \x1b[31m", "\ufffd", '{"a": "\\n"}'],
    ids=["empty", "blank", "64 KiB", "unicode", "replaced", "json"],
)
async def test_any_text_comes_back_as_it_was(streams: Streams, home: Home, text: str) -> None:
    await streams.append([batch(0, [text, "end"])])
    assert await texts(streams) == [text, "end"]
    await streams.close()
    again = home()
    await again.open()
    assert await texts(again) == [text, "end"]
    await again.close()


async def test_levels_that_are_not_known_are_kept_in_bounds(streams: Streams) -> None:
    levels = [0, 1, 5, 6, 77, 300, -1]
    await streams.append([batch(0, list("abcdefg"), levels=levels)])
    assert [line.level for line in await all_lines(streams)] == [2, 1, 5, 5, 5, 5, 2]


@pytest.mark.parametrize(
    "fields",
    [
        {"levels": [2]},
        {"ends": [2]},
        {"times_ms": [1, 2, 3]},
        {"ends": [4, 2]},
        {"begin": 3},
        {"end": 3},
        {"begin": -1},
        {"end": -1},
        {"points": [point(1)]},
        {"points": [point(1)], "point_ends": [5]},
    ],
)
async def test_columns_that_do_not_fit_are_refused_and_nothing_is_taken(
    streams: Streams, fields: dict[str, object]
) -> None:
    good = batch(0, ["good"], of=source(rank=1))
    bad: Append = replace(batch(0, ["a", "b"]), **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"differ|must"):
        await streams.append([good, bad])
    assert await texts(streams) == []


async def test_points_have_positions_of_their_own(streams: Streams) -> None:
    await streams.append([points(0, [1, 2]), batch(0, ["a"]), points(10, [2, 3])])
    placed = await streams.points(JOB, after=1, limit=10)
    assert [(one.position, one.point) for one in placed] == [(2, point(2)), (3, point(3))]
    assert await streams.metrics_bounds(JOB) == Bounds(first=1, last=3)
    assert await streams.log_bounds(JOB) == Bounds(first=1, last=1)


async def test_values_that_are_no_numbers_come_back(streams: Streams, home: Home) -> None:
    odd = point(1, math.nan, epoch=None, values=(("a", math.inf), ("b", -math.inf), ("c", 3.0)))
    nan = point(2, math.nan, epoch=math.nan)
    await streams.append([points(0, [1, 2], points=[odd, nan])])
    await streams.close()
    again = home()
    await again.open()
    first, second = await again.points(JOB, after=0, limit=10)
    assert first.point == odd
    assert math.isnan(second.point.values[0][1])
    assert second.point.epoch is not None
    assert math.isnan(second.point.epoch)
    await again.close()


async def test_the_newest_figures_are_known_and_survive(streams: Streams, home: Home) -> None:
    await streams.append([points(0, [1], progress=10.0, eta_s=60.0)])
    await streams.append([points(10, [2])])
    expected = Latest(point=point(2), progress=10.0, eta_s=60.0)
    assert await streams.latest([JOB, "nobody"]) == {JOB: expected}
    await streams.append([points(20, [], end=30, progress=20.0)])
    expected = Latest(point=point(2), progress=20.0, eta_s=None)
    assert await streams.latest([JOB, "nobody"]) == {JOB: expected}
    await streams.close()
    again = home()
    await again.open()
    assert await again.latest(["nobody", JOB]) == {JOB: expected}
    await again.append([points(0, [1], progress=10.0), points(30, [3])])
    assert await again.latest([JOB]) == {JOB: replace(expected, point=point(3))}
    await again.close()


async def test_a_job_of_which_nothing_was_taken_has_no_figures(streams: Streams) -> None:
    assert await streams.append([batch(5, ["a"])]) == [0]
    assert await streams.latest([JOB]) == {}
    assert await streams.log_bounds(JOB) == Bounds(first=1, last=0)


async def test_the_oldest_lines_go_when_the_budget_is_used_up(streams: Streams) -> None:
    begin = 0
    for number in range(100):
        (begin,) = await streams.append([batch(begin, [f"{number} " + "x" * 5000])])
    bounds = await streams.log_bounds(JOB)
    lines = await all_lines(streams)
    assert bounds.last == 100
    assert [line.position for line in lines] == list(range(bounds.first, 101))
    assert 0.9 * LOG_BYTES_MAX < sum(len(line.text or "") for line in lines) < LOG_BYTES_MAX
    assert await streams.tail_start(JOB, count=1000) == bounds.first - 1


async def test_what_was_dropped_begins_anew(streams: Streams, home: Home) -> None:
    other = batch(0, ["b"], of=source("job_2"))
    await streams.append([batch(0, ["a"] * 1000), points(0, range(1000)), other])
    await streams.drop(JOB)
    await streams.drop("nobody")
    assert await texts(streams) == []
    assert await streams.latest([JOB]) == {}
    assert await streams.points(JOB, after=0, limit=10) == []
    assert await streams.append([batch(2, ["c"])]) == [0]
    assert await streams.append([batch(0, ["c"])]) == [2]
    await streams.close()
    again = home()
    await again.open()
    assert await texts(again) == ["c"]
    assert await again.metrics_bounds(JOB) == Bounds(first=1, last=0)
    assert await texts(again, "job_2") == ["b"]
    await again.close()


async def test_closed_streams_take_nothing(streams: Streams) -> None:
    await streams.append([batch(0, ["a"])])
    await streams.close()
    await streams.close()
    with pytest.raises(StreamsUnavailable):
        await streams.append([batch(2, ["b"])])
