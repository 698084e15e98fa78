"""What holds for all tests: examples that hypothesis makes are the same in every run, and none is
judged by the time that it takes, which is that of a busy machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")
