"""Periods and times as people type them."""

import re
from datetime import UTC, datetime, timedelta

from scaimind.cli import exits

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def period(text: str, *, option: str) -> timedelta:
    """`12h`, `30d`; ends the program with what is wrong with another text."""
    found = _period(text)
    if found is None:
        exits.fail(f"{option} {text}: must be a number and s, m, h or d, such as 30d")
    return found


def seconds(text: str, *, option: str) -> int:
    """The same in seconds; `0` is none."""
    return 0 if text == "0" else int(period(text, option=option).total_seconds())


def moment(text: str, *, option: str) -> datetime:
    """A time in UTC: so long ago (`2h`), or a date, or a date and time (local unless it says)."""
    ago = _period(text)
    if ago is not None:
        return datetime.now(UTC) - ago
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        exits.fail(
            f"{option} {text}: must be a period such as 2h, or a time such as 2026-03-01T09:30"
        )


def _period(text: str) -> timedelta | None:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text)
    if not found:
        return None
    period = timedelta(**{_UNITS[found[2]]: int(found[1])})
    return period if period.days <= 36_500 else None
