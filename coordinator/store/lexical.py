"""Bytes that sort as the values do, for stores whose indexes are sorted bytes.

A text is its UTF-8 with every 0 escaped, and an end that sorts before any further character; a number
is eight bytes. So the bytes of (text, number, …) sort as the tuples, and a prefix names a run of them.
"""

from __future__ import annotations

import struct
from functools import lru_cache

_END = b"\x00\x01"
_ESCAPED = b"\x00\xff"
_NUMBER = struct.Struct(">Q")
_OFFSET = 1 << 63  # so that negative numbers come first


def part(value: str | int) -> bytes:
    """One value of a tuple."""
    return beginning(value) + (b"" if isinstance(value, int) else _END)


def beginning(value: str | int) -> bytes:
    """The least bytes of a value that is not less than this one, whatever follows."""
    if isinstance(value, int):
        return _NUMBER.pack(value + _OFFSET)
    return value.encode().replace(b"\x00", _ESCAPED)


@lru_cache(maxsize=4096)
def parts(*values: str | int) -> bytes:
    """A tuple. Few of them come often: a tenant and a status, a label."""
    return b"".join(map(part, values))


def split(data: bytes, *, number: bool) -> tuple[str | int, bytes]:
    """The first value, and the bytes after it."""
    if number:
        return _NUMBER.unpack_from(data)[0] - _OFFSET, data[_NUMBER.size :]
    text, _, rest = data.partition(_END)
    return text.replace(_ESCAPED, b"\x00").decode(), rest


def beyond(prefix: bytes) -> bytes:
    """The least bytes after all that begin with a prefix, which ends with a text."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
