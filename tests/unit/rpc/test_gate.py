"""Nobody is refused by a coordinator that does not know yet who there is."""

from __future__ import annotations

import math

import pytest

from coordinator.core.reasons import Reason
from coordinator.rpc.gate import Gate
from coordinator.runtime.leadership import Leadership
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View
from coordinator.store.memory import MemoryStore
from tests.unit.rpc.requests import a_key
from tests.unit.runtime.test_view import changed


async def leader() -> Leadership:
    store = MemoryStore()
    await store.open()
    made = Leadership(store, address="here:1", ttl_s=math.inf)
    await made.win()
    return made


def refused(gate: Gate) -> Reason:
    with pytest.raises(Refusal) as caught:
        gate()
    assert caught.value.retry_after_s > 0, "told to try again"
    return caught.value.reason


async def test_calls_are_let_through_once_it_leads_knows_its_state_and_has_a_key() -> None:
    leadership, view = await leader(), View()
    view.epoch = leadership.epoch
    view.apply(changed(a_key("0" * 64)))
    Gate(leadership, view)()


async def test_before_it_leads_calls_are_sent_elsewhere() -> None:
    leadership = Leadership(MemoryStore(), address="here:1", ttl_s=math.inf)
    assert refused(Gate(leadership, View())) is Reason.NOT_LEADER


async def test_before_its_state_was_read_callers_are_told_to_try_again() -> None:
    leadership, view = await leader(), View()
    view.apply(changed(a_key("0" * 64)))
    assert refused(Gate(leadership, view)) is Reason.NOT_LEADER


async def test_before_the_first_key_is_kept_nobody_is_told_that_a_key_is_unknown() -> None:
    leadership, view = await leader(), View()
    view.epoch = leadership.epoch
    assert refused(Gate(leadership, view)) is Reason.NOT_LEADER
