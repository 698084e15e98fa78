"""Blocking work in groups: in order, errors to whoever asked, and never held up by what hangs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from node_agent import groups
from node_agent.groups import GROUP_SIZE, Groups


async def test_each_asker_gets_what_came_of_its_own_thing() -> None:
    def half(number: int) -> int:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number // 2

    async with asyncio.TaskGroup() as tasks:
        work = Groups(tasks, half)
        count = 3 * GROUP_SIZE
        found = await asyncio.gather(*map(work, range(count)), return_exceptions=True)
    assert found[::2] == list(range(count // 2))
    assert [str(error) for error in found[1::2]] == [f"{n} is odd" for n in range(1, count, 2)]


async def test_what_comes_while_a_group_is_worked_on_is_done_by_the_same_thread() -> None:
    begun, go_on = threading.Event(), threading.Event()
    most = at_once = 0

    def count(number: int) -> int:
        nonlocal most, at_once
        at_once += 1
        most = max(most, at_once)
        begun.set()
        assert go_on.wait(60)
        at_once -= 1
        return number

    async with asyncio.TaskGroup() as tasks:
        work = Groups(tasks, count)
        first = asyncio.ensure_future(work(0))
        await asyncio.to_thread(begun.wait, 60)
        others = [asyncio.ensure_future(work(number)) for number in range(1, 5)]
        await asyncio.sleep(0)
        go_on.set()
        assert await asyncio.gather(first, *others) == [0, 1, 2, 3, 4]
    assert most == 1


async def test_work_that_hangs_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "STUCK_S", 0.01)
    begun, answers = threading.Event(), threading.Event()

    def hang(number: int) -> int:
        if number == 0:
            begun.set()
            assert answers.wait(60)
        return number

    async with asyncio.TaskGroup() as tasks, asyncio.timeout(60):
        work = Groups(tasks, hang)
        hanging = asyncio.ensure_future(work(0))
        await asyncio.to_thread(begun.wait, 60)
        assert await work(1) == 1
        assert not hanging.done()
        answers.set()
        assert await hanging == 0


async def test_one_that_gives_up_waiting_does_not_disturb_the_others() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(number: int) -> int:
        begun.set()
        assert go_on.wait(60)
        return number

    async with asyncio.TaskGroup() as tasks:
        work = Groups(tasks, wait)
        impatient, patient = (asyncio.ensure_future(work(number)) for number in (0, 1))
        await asyncio.to_thread(begun.wait, 60)
        impatient.cancel()
        go_on.set()
        assert await patient == 1
