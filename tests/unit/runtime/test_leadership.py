"""A term of leadership: standing by, being sure for less time than the store gives, stepping down."""

from __future__ import annotations

import asyncio
import math
from collections import deque

import pytest

from coordinator.core.reasons import Reason
from coordinator.runtime.leadership import ASKED_PER_TTL, SURE_RATIO, Leadership
from coordinator.runtime.refusal import Refusal
from coordinator.store.memory import MemoryStore
from coordinator.store.protocol import (
    LEASE_TTL_S,
    Fenced,
    Leader,
    Led,
    StoreLost,
    StoreUnavailable,
)

TTL_S = 0.05
OTHER = Led(Leader(epoch=7, holder="other", address="other:1"), for_s=0.001)


class ScriptedStore(MemoryStore):
    """Answers the next questions with the errors that it is given; None is success."""

    def __init__(self) -> None:
        super().__init__()
        self.acquires: deque[Exception | None] = deque()
        self.renews: deque[Exception | None] = deque()
        self.renewed: list[float] = []
        self.holders: list[str] = []
        self.asked = asyncio.Event()

    async def acquire(self, holder: str, *, address: str = "", ttl_s: float = LEASE_TTL_S) -> int:
        self.holders.append(holder)
        if error := self.acquires.popleft() if self.acquires else None:
            asyncio.get_running_loop().call_soon(self.asked.set)
            raise error
        return await super().acquire(holder, address=address, ttl_s=ttl_s)

    async def renew(self, epoch: int, *, ttl_s: float = LEASE_TTL_S) -> None:
        if error := self.renews.popleft() if self.renews else None:
            raise error
        self.renewed.append(ttl_s)


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def store() -> ScriptedStore:
    opened = ScriptedStore()
    await opened.open()
    return opened


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def leadership(store: ScriptedStore, time: Time) -> Leadership:
    return Leadership(store, address="me:1", ttl_s=TTL_S, now_s=time)


def refusal(leadership: Leadership) -> Refusal:
    with pytest.raises(Refusal) as caught:
        leadership.check()
    return caught.value


async def test_it_refuses_everything_before_it_leads(leadership: Leadership) -> None:
    assert refusal(leadership).reason is Reason.NOT_LEADER
    assert await leadership.win() == 1
    leadership.check()


async def test_a_standby_names_the_leader_and_takes_over_when_it_is_gone(
    store: ScriptedStore, leadership: Leadership
) -> None:
    store.acquires.extend([OTHER] * 3)
    winning = asyncio.create_task(leadership.win())
    await store.asked.wait()
    assert refusal(leadership).facts == (("leader", "other:1"),)
    assert await winning == 1
    assert len(store.holders) == 4


async def test_it_is_sure_for_less_time_than_the_store_gave_it(
    time: Time, leadership: Leadership
) -> None:
    await leadership.win()
    time.now_s += TTL_S * SURE_RATIO * 0.99
    leadership.check()
    time.now_s += TTL_S * SURE_RATIO * 0.02
    assert not leadership.is_sure
    assert refusal(leadership).reason is Reason.NOT_LEADER


async def test_a_store_that_does_not_answer_makes_it_unsure_and_then_sure_again(
    store: ScriptedStore, time: Time, leadership: Leadership
) -> None:
    await leadership.win()
    told: asyncio.Queue[bool] = asyncio.Queue()
    store.renews.extend([StoreUnavailable("away")] * 3)
    time.now_s += TTL_S
    keeping = asyncio.create_task(leadership.keep(told.put))
    async with asyncio.timeout(60):
        assert await told.get() is False
        assert await told.get() is True
    assert leadership.is_sure
    keeping.cancel()


async def test_another_leader_ends_the_term(store: ScriptedStore, leadership: Leadership) -> None:
    await leadership.win()
    store.renews.extend([None, Fenced("over")])
    with pytest.raises(Fenced):
        async with asyncio.timeout(60):
            await leadership.keep(lambda _: asyncio.sleep(0))
    assert store.renewed == [TTL_S]


async def test_trouble_at_the_first_question_is_told_and_later_it_is_waited_for(
    store: ScriptedStore, leadership: Leadership
) -> None:
    store.acquires.append(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await leadership.win()
    store.acquires.extend([OTHER, StoreUnavailable("away"), StoreUnavailable("away")])
    async with asyncio.timeout(60):
        assert await leadership.win() == 1


async def test_a_store_that_was_emptied_ends_the_waiting(
    store: ScriptedStore, leadership: Leadership
) -> None:
    store.acquires.extend([OTHER, StoreLost("emptied")])
    with pytest.raises(StoreLost):
        await leadership.win()


async def test_it_lets_go_and_is_sure_of_nothing_any_more(
    store: ScriptedStore, leadership: Leadership
) -> None:
    await leadership.resign()
    assert store.renewed == []
    await leadership.win()
    await leadership.resign()
    assert store.renewed == [0]
    assert not leadership.is_sure
    store.renews.append(StoreUnavailable("away"))
    await leadership.resign()


async def test_every_term_has_a_name_of_its_own(store: ScriptedStore) -> None:
    for _ in range(3):
        await Leadership(store, address="me:1", ttl_s=TTL_S).win()
    assert len(set(store.holders)) == 3


async def test_where_nobody_else_can_lead_it_is_sure_for_ever(
    store: ScriptedStore, time: Time
) -> None:
    leadership = Leadership(store, address="me:1", ttl_s=math.inf, now_s=time)
    await leadership.win()
    time.now_s += 1e9
    leadership.check()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(TTL_S / ASKED_PER_TTL):
            await leadership.keep(lambda _: asyncio.sleep(0))
    await leadership.resign()
    assert store.renewed == []
