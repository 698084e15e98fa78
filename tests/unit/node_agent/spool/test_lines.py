"""How bytes become lines."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.spool.lines import (
    CONTINUED,
    MAX_LINE_BYTES,
    MAX_LINES,
    MAX_TEXT_BYTES,
    clean,
    cut,
    texts_of,
)


def read_all(data: bytes, *, start: int = 0, continues: bool = False) -> list[tuple[int, str]]:
    """The end offset and text of every line from `start` on, read as a channel reads them."""
    lines: list[tuple[int, str]] = []
    while start < len(data):
        window = data[start : start + 128 * 1024]
        found = cut(window, final=start + len(window) == len(data))
        assert found.ends, "a final reading always gets on"
        _, texts = texts_of(window, found, continues=continues)
        lines += [(start + end, text) for end, text in zip(found.ends, texts, strict=True)]
        start += found.ends[-1]
        continues = found.goes_on
    return lines


def texts(data: bytes) -> list[str]:
    return [text for _, text in read_all(data)]


def test_lines_end_at_newlines_with_or_without_a_carriage_return() -> None:
    assert texts(b"one\ntwo\r\n\nfour") == ["one", "two", "", "four"]


def test_the_end_of_a_line_is_the_offset_after_its_newline() -> None:
    assert [end for end, _ in read_all("a\nbé\r\nc".encode())] == [2, 7, 8]


def test_a_line_without_newline_waits_until_nothing_more_can_come() -> None:
    assert cut(b"half a li", final=False).lines == ()
    assert cut(b"half a li", final=True).lines == (b"half a li",)


def test_at_most_a_thousand_lines_are_cut_at_once() -> None:
    found = cut(b"\n" * 5000, final=False)
    assert len(found.lines) == MAX_LINES
    assert found.ends[-1] == MAX_LINES


def test_a_line_too_long_is_cut_into_marked_pieces_and_nothing_is_lost() -> None:
    data = b"x" * 1_000_000 + b"\nnext\n"
    *pieces, last = texts(data)
    assert last == "next"
    assert len(pieces) == 16
    assert all(len(piece.encode()) <= MAX_TEXT_BYTES for piece in pieces)
    assert all(piece.endswith(CONTINUED) for piece in pieces[:-1])
    assert all(piece.startswith(CONTINUED) for piece in pieces[1:])
    assert "".join(piece.strip(CONTINUED) for piece in pieces) == "x" * 1_000_000


def test_a_piece_ends_between_characters() -> None:
    data = b"a" + "é".encode() * 100_000
    pieces = texts(data)
    assert "".join(piece.strip(CONTINUED) for piece in pieces) == "a" + "é" * 100_000


def test_text_that_grows_when_escaped_still_fits_the_limit() -> None:
    pieces = texts(b"\x00" * 200_000 + b"\n" + b"\x1b" * 30_000 + b"\n")
    assert all(len(piece.encode()) <= MAX_TEXT_BYTES for piece in pieces)
    assert sum(piece.count("\\x00") for piece in pieces) == 200_000
    assert sum(piece.count("\\x1b") for piece in pieces) == 30_000


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert texts(b"caf\xe9\n\xff\xfe\nok\n") == ["caf\ufffd", "\ufffd\ufffd", "ok"]


def test_control_and_bidi_characters_are_escaped() -> None:
    line = "a\x1b[31mred\x00\x07\x85\u2028\u202eevil\ufeff\U000e0041\tz\n"
    assert texts(line.encode()) == [
        r"a\x1b[31mred\x00\x07\x85\u2028\u202eevil\ufeff\U000e0041" + "\tz"
    ]


def test_of_a_progress_bar_the_last_drawing_is_kept() -> None:
    assert texts(b"\r 1%\r 50%\r100%\nafter\nbar\r\r\n") == ["100%", "after", "bar"]


def test_a_bar_without_end_shows_up_once_for_every_piece() -> None:
    drawn = b"".join(b"\r%7d%%" % i for i in range(30_000))
    lines = texts(drawn)
    assert 2 <= len(lines) <= 6
    assert not any(CONTINUED in line for line in lines)
    assert lines[-1].strip() == "29999%"


def test_plain_text_is_left_alone() -> None:
    text = "".join(map(chr, range(0x20, 0x7F))) + "\tÄ 日本語 👩‍💻\n"
    assert clean(text.encode()) == text


PARTS = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"a", b"\x00" * 9000, "é".encode(), b"\xff", b"x" * 70_000, b"\xe2\x80"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PARTS, max_size=12).map(b"".join))
def test_a_second_reading_from_any_cut_finds_the_same_lines(data: bytes) -> None:
    lines = read_all(data)
    for i, (end, text) in enumerate(lines):
        goes_on = text.endswith(CONTINUED) and data[end - 1 : end] not in (b"\n", b"\r")
        assert read_all(data, start=end, continues=goes_on) == lines[i + 1 :]


@settings(max_examples=60, deadline=None)
@given(st.lists(PARTS, max_size=12).map(b"".join))
def test_no_text_holds_a_control_character_or_is_over_the_limit(data: bytes) -> None:
    for _, text in read_all(data):
        assert len(text.encode()) <= MAX_TEXT_BYTES
        assert not any(unicodedata.category(c) == "Cc" and c != "\t" for c in text)


@given(st.integers(MAX_LINE_BYTES - 2, MAX_LINE_BYTES + 2))
def test_only_a_line_over_the_limit_is_cut(size: int) -> None:
    assert len(texts(b"x" * size + b"\n")) == (1 if size <= MAX_LINE_BYTES else 2)
