"""A file followed by offset: growth, truncation, gaps, and disk given back."""

from __future__ import annotations

import os
from pathlib import Path

from node_agent.ranks import RankFiles
from node_agent.spool.channels import Channel
from node_agent.spool.readers import OutputReader, Reports
from node_agent.spool.tail import CHUNK_BYTES, Tail

MIB = 1024 * 1024


def numbered(count: int) -> bytes:
    return b"".join(b"line %08d of many\n" % i for i in range(count))


def test_a_file_that_does_not_exist_yet_is_empty(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "stdout")
    assert (tail.size(), tail.read()) == (0, b"")
    (tmp_path / "stdout").write_bytes(b"one\n")
    assert (tail.size(), tail.read()) == (4, b"one\n")


def test_reading_is_bounded_and_goes_on_where_it_was_told(tmp_path: Path) -> None:
    data = numbered(100_000)
    (tmp_path / "stdout").write_bytes(data)
    tail = Tail(tmp_path / "stdout")
    read = b""
    while chunk := tail.read():
        assert len(chunk) <= CHUNK_BYTES
        read += chunk
        tail.advance(len(chunk), continues=False)
    assert read == data


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret\n")
    (tmp_path / "stdout").symlink_to(tmp_path / "secret")
    assert Tail(tmp_path / "stdout").read() == b""


def test_a_truncated_file_begins_anew_and_offsets_still_rise(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    path.write_bytes(b"first\nsecond\n")
    tail = Tail(path)
    tail.read()
    tail.advance(13, continues=False)
    path.write_bytes(b"third\n")
    assert tail.size() == 19
    assert tail.read() == b"third\n"
    assert (tail.position, tail.base, tail.gap) == (13, 13, True)
    again = Tail(path, position=13, base=13)
    assert again.read() == b"third\n"


def test_the_middle_of_a_line_is_known_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"abc\ndef\n")
    for position, continues in ((0, False), (2, True), (4, False)):
        tail = Tail(tmp_path / "stdout", position=position)
        tail.read()
        assert tail.continues is continues


def test_released_blocks_leave_the_disk_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    data = numbered(200_000)
    path.write_bytes(data)
    os.sync()
    before = path.stat().st_blocks
    tail = Tail(path, position=4 * MIB)
    tail.size()
    tail.release(4 * MIB)
    assert path.stat().st_blocks <= before - 4 * MIB // 512 + 64
    assert path.stat().st_size == len(data)
    assert tail.read() == data[4 * MIB :][:CHUNK_BYTES]


def test_trimming_drops_the_oldest_up_to_the_beginning_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    data = numbered(200_000)
    path.write_bytes(data)
    tail = Tail(path)
    assert tail.trim(len(data)) == 0
    dropped = tail.trim(MIB)
    assert dropped == tail.position
    assert len(data) - MIB < tail.position < len(data)
    assert tail.gap
    assert tail.read().startswith(b"line ")
    assert data[tail.position - 1 : tail.position] == b"\n"


def test_what_an_earlier_agent_punched_is_not_read_as_output(tmp_path: Path) -> None:
    path = tmp_path / "stdout"
    data = numbered(200_000)
    path.write_bytes(data)
    earlier = Tail(path, position=30)
    earlier.trim(MIB)
    earlier.close()
    later = Tail(path, position=30)
    lines: list[bytes] = []
    while chunk := later.read():
        whole = chunk[: chunk.rindex(b"\n") + 1]
        lines += whole.splitlines(keepends=True)
        later.advance(len(whole), continues=False)
    assert set(lines[1:]) <= set(data.splitlines(keepends=True))
    assert b"".join(lines).endswith(data[earlier.position :])


def test_a_file_of_an_earlier_boot_that_has_lost_its_end_is_not_taken_for_a_new_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "stdout"
    path.write_bytes(numbered(3))
    size = path.stat().st_size
    lost = Tail(path, position=size + 100, is_final=True)
    assert lost.read() == b""
    assert (lost.position, lost.base, lost.gap) == (size, 0, False)


def test_a_gap_with_nothing_behind_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"a line\n" + b"x" * 200 + b"\n")
    tail = Tail(tmp_path / "stdout")
    rank = RankFiles(tmp_path, "j", "j", 1, "j.1.0", 1, 0, tmp_path, 3)
    reader = OutputReader(Reports(), seeks_metrics=False)
    channel = Channel("stdout", rank, tail=tail, reader=reader)
    tail.trim(100)
    assert tail.position == tail.size() == 208
    batch = channel.next_batch(now_ms=0)
    assert batch is not None
    assert (batch.begin, batch.end, batch.gap_before, len(batch.texts)) == (208, 208, True, 0)
    assert channel.next_batch(now_ms=0) is None
