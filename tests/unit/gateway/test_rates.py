"""Rates: the sliding window in memory, and what callers are told."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth import Identity
from gateway.rates import Limiter, LocalWindow, Rates, Subject, Verdict, Window
from gateway.status import Failure
from tests.unit.gateway.windows import CONTRACT

ANN = Identity("acme", "ann", frozenset(), "ab" * 32)


@pytest.mark.parametrize("rule", CONTRACT)
async def test_the_contract_of_windows(rule: Callable[[Window], Awaitable[None]]) -> None:
    await rule(LocalWindow(clock=lambda: 1000.5))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 7, allow_nan=False), min_size=1, max_size=200), st.integers(1, 9))
async def test_no_window_ever_holds_more_than_the_limit(gaps: list[float], limit: int) -> None:
    now, admitted = [0.0], []
    window = LocalWindow(window_s=10, clock=lambda: now[0])
    for gap in gaps:
        now[0] += gap
        if (await window.take([Subject("s", limit)])).allowed:
            admitted.append(now[0])
    for began in admitted:
        assert sum(began <= at < began + 10 for at in admitted) <= limit


async def test_a_place_is_free_again_when_it_was_said_to_be() -> None:
    now = [100.25]
    window = LocalWindow(clock=lambda: now[0])
    for _ in range(3):
        verdict = await window.take([Subject("s", 2)])
        now[0] += 0.5
    assert not verdict.allowed
    told_s = verdict.usages[0].reset_after_s
    now[0] += told_s - 0.5 - 0.01
    assert not (await window.take([Subject("s", 2)])).allowed
    now[0] += 0.02
    assert (await window.take([Subject("s", 2)])).allowed


async def test_memory_is_bounded_whatever_comes() -> None:
    window = LocalWindow(capacity=100, clock=lambda: random.uniform(0, 1))
    for number in range(1000):
        await window.take([Subject(f"s{number}", 5)])
    assert len(window._counters) == 100


async def test_a_subject_takes_one_counter_for_each_second() -> None:
    now = [0.0]
    window = LocalWindow(clock=lambda: now[0])
    for number in range(10_000):
        now[0] = number / 100
        await window.take([Subject("s", 1_000_000)])
    assert len(window._counters["s"].seconds) == 60


class Recorder:
    """Admits everything; keeps the subjects."""

    def __init__(self) -> None:
        self.subjects: list[Subject] = []
        self._inner = LocalWindow(clock=lambda: 0.0)

    async def take(self, subjects: Sequence[Subject]) -> Verdict:
        self.subjects = list(subjects)
        return await self._inner.take(subjects)

    async def close(self) -> None: ...


def told(headers: list[tuple[bytes, bytes]]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in headers}


async def test_callers_are_told_of_their_tightest_limit_under_both_names() -> None:
    limiter = Limiter(LocalWindow(clock=lambda: 0.0), Rates(key=5, user=3, tenant=4))
    headers: list[tuple[bytes, bytes]] = []
    await limiter.admit(ANN, headers)
    assert told(headers) == {
        f"{prefix}-{name}": value
        for prefix in ("x-ratelimit", "x-scaigrid-ratelimit")
        for name, value in (("limit", 3), ("remaining", 2), ("reset", 60))
    }


async def test_a_refusal_says_when_to_come_again() -> None:
    limiter = Limiter(LocalWindow(clock=lambda: 0.0), Rates(key=1))
    await limiter.admit(ANN, [])
    headers: list[tuple[bytes, bytes]] = []
    with pytest.raises(Failure) as refused:
        await limiter.admit(ANN, headers)
    assert (refused.value.http_status, refused.value.code) == (429, "RATE_LIMITED")
    assert refused.value.retry_after_s == told(headers)["x-ratelimit-reset"] == 60
    assert told(headers)["x-ratelimit-remaining"] == 0


async def test_subjects_tell_nothing_and_stand_together_by_tenant() -> None:
    recorder = Recorder()
    limiter = Limiter(recorder, Rates())
    await limiter.admit(ANN, [])
    names = [subject.name for subject in recorder.subjects]
    assert [subject.limit for subject in recorder.subjects] == [60, 120, 1000]
    assert len({name.partition("}")[0] for name in names}) == 1
    assert not any(word in name for name in names for word in ("acme", "ann", "abab"))
    await limiter.admit(Identity("acme", "ann", frozenset()), [])
    assert [subject.name for subject in recorder.subjects] == names[1:]


async def test_a_user_of_another_tenant_is_another_user() -> None:
    limiter = Limiter(LocalWindow(clock=lambda: 0.0), Rates(key=0, user=1, tenant=0))
    await limiter.admit(Identity("acme", "ann", frozenset()), [])
    await limiter.admit(Identity("other", "ann", frozenset()), [])
    with pytest.raises(Failure):
        await limiter.admit(Identity("acme", "ann", frozenset()), [])


async def test_zero_is_no_limit() -> None:
    limiter = Limiter(LocalWindow(), Rates(0, 0, 0))
    headers: list[tuple[bytes, bytes]] = []
    for _ in range(2000):
        await limiter.admit(ANN, headers)
    assert headers == []
