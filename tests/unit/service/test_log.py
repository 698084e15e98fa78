"""The lines of a program's own log."""

from __future__ import annotations

from scaimind.service.log import plain


def line(**fields: object) -> str:
    return plain(None, "info", {"timestamp": "T", "level": "info", "event": "request", **fields})


def test_a_line_says_when_how_bad_what_and_the_rest_in_order() -> None:
    shown = line(status=200, route="/jobs/{job_id}", duration_ms=1.5)
    assert shown.split() == [
        *("T", "[info", "]", "request"),
        *("duration_ms=1.5", "route=/jobs/{job_id}", "status=200"),
    ]


def test_no_text_of_others_makes_a_line_of_its_own_or_a_second_pair() -> None:
    for text in ("a\nT [error    ] forged", "a level=error", "a\x1b[2J", "\u2028", 'a"', "", "'"):
        shown = line(detail=text)
        assert shown.endswith(f" detail={text!r}")
        assert len(shown.splitlines()) == 1


def test_a_traceback_stands_below_its_line() -> None:
    shown = line(exception="Traceback\n  here")
    assert shown.splitlines()[1:] == ["Traceback", "  here"]
