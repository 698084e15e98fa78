"""Bytes that a rank printed, cut into lines that are safe to show. Pure.

Rules of the cut:
- A line ends at a newline, with or without a carriage return before it. A line without newline is
  only a line once nothing more can come.
- A line of more than MAX_LINE_BYTES is cut into pieces; a piece that goes on ends with `…`, and
  the next one begins with it. Where to cut depends on nothing but the bytes after the last cut, so
  a second reading that begins at any cut finds the same pieces, with the same offsets.
- Of a line that was drawn over with lone carriage returns (a progress bar) the last segment is
  kept, as a terminal would show it; a bar without end shows up once for every MAX_LINE_BYTES.
- Bytes that are no UTF-8 become U+FFFD. Control characters, and those that reorder or hide text,
  become visible escapes: no line can forge another one, or a terminal's command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

CONTINUED = "…"
MAX_TEXT_BYTES = 64 * 1024
# Both marks fit, so that no text is over 64 KiB.
MAX_LINE_BYTES = MAX_TEXT_BYTES - 2 * len(CONTINUED.encode())
# Escaping makes at most four bytes of one, so a piece of this size always fits.
_SURE_BYTES = MAX_LINE_BYTES // 4
MAX_LINES = 1000

_PLAIN = bytes(range(0x20, 0x7F)) + b"\t\n"
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)


class Cut(NamedTuple):
    """Lines at the front of some bytes.

    `lines` are without their line ends; `ends[i]` is the number of bytes up to the end of line i,
    its line end included. `goes_on`: the last one is a piece, and its line continues.
    """

    lines: Sequence[bytes]
    ends: Sequence[int]
    goes_on: bool = False


NOTHING = Cut((), ())


def cut(data: bytes, *, final: bool, limit: int = MAX_LINE_BYTES) -> Cut:
    """Cuts up to MAX_LINES lines off the front of `data`.

    `data` has more than `limit` bytes unless there are no more for now. `final`: none will come.
    """
    lines = data.split(b"\n", MAX_LINES)
    rest = lines.pop()
    if lines and max(map(len, lines)) > _SURE_BYTES:
        lines = lines[: next((i for i, line in enumerate(lines) if _long(line, limit)), len(lines))]
    if lines:
        return Cut(lines, [size + i for i, size in enumerate(accumulate(map(len, lines)), 1)])
    line = data[: data.find(b"\n")] if b"\n" in data else rest
    if _long(line, limit):
        return _piece(line[:limit])
    if final and line:
        return Cut((line,), (len(line),))
    return NOTHING


def _long(line: bytes, limit: int) -> bool:
    if len(line) > limit:
        return True
    return len(line) > _SURE_BYTES and len(clean(line).encode()) > MAX_LINE_BYTES


def _piece(window: bytes) -> Cut:
    bar = window.rfind(b"\r", 1) + 1
    if bar and len(clean(window[:bar]).encode()) <= MAX_LINE_BYTES:
        return Cut((window[:bar],), (bar,))
    size = _whole_characters(window)
    if len(clean(window[:size]).encode()) > MAX_LINE_BYTES:
        size = _whole_characters(window[:_SURE_BYTES])
    return Cut((window[:size],), (size,), goes_on=True)


def _whole_characters(window: bytes) -> int:
    """The size of `window` without the UTF-8 character that its end may cut through."""
    for back in range(1, min(4, len(window))):
        byte = window[-back]
        if byte >= 0xC0:
            width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(window) - back if width > back else len(window)
        if byte < 0x80:
            break
    return len(window)


def clean(data: bytes) -> str:
    """The text of one or many lines, each safe to show; newlines stay."""
    if not data.translate(None, _PLAIN):
        return data.decode("ascii")
    text = data.decode("utf-8", "replace")
    if "\r" in text:
        text = "\n".join(map(_last_drawn, text.split("\n")))
    return escape(text)


def escape(text: str) -> str:
    """`text` with all that a line must not hold made visible; newlines stay."""
    return _UNSAFE.sub(_escaped, text)


def _last_drawn(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2] if "\r" in line else line


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def texts_of(data: bytes, found: Cut, *, continues: bool) -> tuple[str, list[str]]:
    """All lines of `found`, a cut of `data`, as one text and one by one.

    `continues`: the first one goes on with a line that was begun before.
    """
    text = clean(data[: found.ends[-1]])
    lines = text.split("\n") if text.endswith("\n") else [*text.split("\n"), ""]
    lines.pop()
    if continues:
        lines[0] = CONTINUED + lines[0]
    if found.goes_on:
        lines[-1] += CONTINUED
    return text, lines
