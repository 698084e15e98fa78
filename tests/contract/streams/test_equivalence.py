"""Random pushes: every byte range is taken once, and streams in memory and on disk never differ."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.streams.protocol import Append, Streams
from tests.contract.streams.conftest import homes
from tests.contract.streams.samples import JOB, all_lines, batch, point, source

COUNT = 12  # lines of one source; line i is 3 bytes long with its end
SOURCES = [source(), source(channel=2), source(rank=1), source(attempt=2), source("job_2")]


def piece(number: int, first: int, last: int, *, gap: bool) -> Append:
    """Lines `first` to `last` of a source, and a point at the end of each even one."""
    some = [f"{index:02d}" for index in range(first, last + 1)]
    steps = [index for index in range(first, last + 1) if index % 2 == 0]
    one = batch(3 * first, some, levels=[index % 6 for index in range(first, last + 1)])
    return replace(
        one,
        source=SOURCES[number],
        points=[point(step) for step in steps],
        point_ends=[3 * step + 3 for step in steps],
        gap_before=gap,
        progress=float(last),
    )


pieces = st.builds(
    lambda number, ends, gap: piece(number, min(ends), max(ends), gap=gap),
    st.integers(0, len(SOURCES) - 1),
    st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)),
    st.just(False),
)
with_gaps = st.builds(lambda one, gap: replace(one, gap_before=gap), pieces, st.booleans())
groups = st.lists(pieces, min_size=1, max_size=4)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


async def everything(streams: Streams) -> list[Any]:
    """All that streams can be asked."""
    answers: list[Any] = [await streams.latest([JOB, "job_2"])]
    for job_id in (JOB, "job_2"):
        answers.append(await all_lines(streams, job_id, limit=5))
        answers.append(await streams.points(job_id, after=1, limit=100))
        answers.append(await streams.sampled(job_id, max_points=3))
        answers.append(await streams.log_bounds(job_id))
        answers.append(await streams.metrics_bounds(job_id))
        for rank in (None, 1):
            for level in (0, 3):
                answers.append(
                    await streams.lines(job_id, after=2, limit=4, rank=rank, min_level=level)
                )
                answers.append(
                    await streams.tail_start(job_id, count=3, rank=rank, min_level=level)
                )
    return answers


@quick
@given(st.lists(groups, max_size=8))
async def test_every_line_is_there_once_whatever_was_sent_in_whatever_order(
    sent: list[list[Append]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for home in homes(Path(folder)).values():
            streams = home()
            await streams.open()
            for group in sent:
                await streams.append(group)
            for number in range(len(SOURCES)):  # the agents send the rest, from where they are told
                (known,) = await streams.append([piece(number, COUNT - 1, COUNT - 1, gap=False)])
                if known < 3 * COUNT:
                    await streams.append([piece(number, known // 3, COUNT - 1, gap=False)])
            for job_id in (JOB, "job_2"):
                lines = await all_lines(streams, job_id)
                assert [line.position for line in lines] == list(range(1, len(lines) + 1))
                for of in SOURCES:
                    if of.job_id == job_id:
                        assert [
                            line.text
                            for line in lines
                            if (line.attempt, line.rank, line.channel)
                            == (of.attempt, of.rank, of.channel)
                        ] == [f"{index:02d}" for index in range(COUNT)]
            assert (await streams.metrics_bounds(JOB)).last == 4 * COUNT // 2
            await streams.close()


@quick
@given(st.lists(st.lists(with_gaps, min_size=1, max_size=4), max_size=6))
async def test_all_streams_answer_the_same_after_any_pushes(sent: list[list[Append]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        answers = []
        for home in homes(Path(folder)).values():
            streams = home()
            await streams.open()
            offsets = [await streams.append(group) for group in sent]
            answers.append([offsets, *await everything(streams)])
            await streams.close()
            again = home()
            await again.open()
            answers.append([offsets, *await everything(again)])
            await again.close()
    assert all(answer == answers[0] for answer in answers)
