"""How values look to people: times, sizes, durations, and text that cannot harm a terminal."""

import time
from typing import Any

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def clean(text: str) -> str:
    """The text with control characters escaped, so that it cannot command the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def duration(seconds: float) -> str:
    """`3d 4h`, `2m 10s`, `7s`: the two largest units that matter."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or (parts and left):
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part[0] != "0") or "0s"


def ago(stamp: Any, *, now_s: float | None = None) -> str:
    """`2m ago` or `in 3h`; empty for a time that is not set. `stamp` is a Timestamp."""
    at_s = stamp.seconds + stamp.nanos / 1e9
    if not at_s:
        return ""
    passed_s = (time.time() if now_s is None else now_s) - at_s
    amount = _coarse(abs(passed_s))
    return f"{amount} ago" if passed_s >= 0 else f"in {amount}"


def _coarse(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "0s"


def size(count_bytes: float) -> str:
    """`1.5 GB`: decimal units, as disks and GPUs are sold."""
    number = float(count_bytes)
    for unit in _SIZES[:-1]:
        if abs(number) < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} {_SIZES[-1]}"


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def optional_seconds(message: Any, field: str) -> str:
    """The duration in an optional field; `unknown` where it is not set."""
    return duration(getattr(message, field)) if message.HasField(field) else "unknown"
