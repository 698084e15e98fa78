"""How forecasts have compared with what came: what makes "nine times in ten" true.

A forecast is one number, made with the likeliest durations. What is said of it comes from the quotients of
past waits and their forecasts, of forecasts of the same magnitude: their median and their ninth decile
(split conformal prediction: Vovk, Gammerman, Shafer 2005). Before enough is known, quotients that were
seen on recorded workloads stand in.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

KEPT = 200  # per magnitude; older ones say less about today
ENOUGH = 20
LEAST_MS = 1_000
FIRST_MEDIAN, FIRST_LATE = 1.0, 2.5


class Calibration:
    """Quotients of actual and forecast waits, by the magnitude of the forecast (powers of four)."""

    def __init__(self) -> None:
        self._kept: dict[int, deque[float]] = {}
        self._sorted: dict[int, list[float]] = {}

    def learn(self, forecast_ms: int, actual_ms: int) -> None:
        """Takes over how one forecast has come out."""
        key = _magnitude(forecast_ms)
        quotient = max(actual_ms, LEAST_MS) / max(forecast_ms, LEAST_MS)
        kept = self._kept.setdefault(key, deque())
        ordered = self._sorted.setdefault(key, [])
        kept.append(quotient)
        insort(ordered, quotient)
        if len(kept) > KEPT:
            del ordered[bisect_left(ordered, kept.popleft())]

    def median_ms(self, forecast_ms: int) -> int:
        """The wait that is as likely to be shorter as to be longer."""
        return round(forecast_ms * self._quantile(forecast_ms, 0.5, first=FIRST_MEDIAN))

    def late_ms(self, forecast_ms: int) -> int:
        """The wait that is exceeded once in ten times."""
        late = round(forecast_ms * self._quantile(forecast_ms, 0.9, first=FIRST_LATE))
        return max(late, self.median_ms(forecast_ms))

    def _quantile(self, forecast_ms: int, part: float, *, first: float) -> float:
        ordered = self._sorted.get(_magnitude(forecast_ms), ())
        if len(ordered) < ENOUGH:
            return first
        # the next higher one: (n + 1) x part, as split conformal prediction has it
        return ordered[min(len(ordered) - 1, int((len(ordered) + 1) * part))]


def _magnitude(forecast_ms: int) -> int:
    return max(forecast_ms, LEAST_MS).bit_length() // 2
