"""A rank that has a deadline is stopped by it, whatever became of the agent; others never are."""

from __future__ import annotations

import json
import os
import signal
import time

from node_agent.core.leases import Category, Rank, State
from node_agent.ranks import STDOUT
from node_agent.runtime.kernel import boot_now_ms
from tests.contract.runtimes.conftest import Bench, until_gone, until_holds

SLEEP = "import time; time.sleep(60)"
DEAF = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf'); " + SLEEP
COUNT = "import time\nfor n in range(10**6): print(n); time.sleep(0.02)"


def runs(rank: Rank) -> bool:
    return rank.state is State.RUNNING


async def test_a_rank_stops_once_nobody_has_answered_for_as_long_as_it_was_told(
    bench: Bench,
) -> None:
    path = bench.python(SLEEP, fence_after_ms=bench.after_ms)
    await bench.in_contact(path, runs)
    rank = await bench.ended(path)
    assert rank.signal == signal.SIGTERM
    assert rank.fault is not None
    assert rank.fault.category is Category.NODE_LOST
    assert boot_now_ms() - bench.contact.sent_ms >= bench.after_ms


async def test_contact_moves_the_deadline_and_its_end_lets_it_come(bench: Bench) -> None:
    path = bench.python(COUNT, fence_after_ms=bench.after_ms)
    await bench.in_contact(path, runs)
    over_ms = boot_now_ms() + 2 * bench.after_ms
    await bench.in_contact(path, lambda rank: not runs(rank) or boot_now_ms() > over_ms)
    assert bench.runtime.observe(path).state is State.RUNNING
    assert (await bench.ended(path)).stopped


async def test_a_deadline_needs_no_agent(bench: Bench) -> None:
    path = bench.python(SLEEP, fence_after_ms=bench.after_ms)
    await bench.in_contact(path, runs)
    pid = json.loads((path / "started.json").read_text())["pid"]
    await bench.runtime.close()
    await until_gone(pid)
    await until_holds(path / "exit.json", "NODE_LOST")
    await bench.runtime.adopt(path, 0)


async def test_a_frozen_rank_and_one_that_ignores_sigterm_are_gone_a_third_of_the_time_later(
    bench: Bench,
) -> None:
    path = bench.python(DEAF, fence_after_ms=2_000)
    said = path / STDOUT
    await bench.in_contact(path, lambda _: said.exists() and "deaf" in said.read_text())
    os.kill(json.loads((path / "started.json").read_text())["pid"], signal.SIGSTOP)
    rank = await bench.ended(path)
    assert rank.signal == signal.SIGKILL
    assert boot_now_ms() - bench.contact.sent_ms >= 2_000 + 2_000 // 3


async def test_a_deadline_may_be_lifted_and_set(bench: Bench) -> None:
    path = bench.python(COUNT, fence_after_ms=bench.after_ms)
    await bench.in_contact(path, runs)
    bench.runtime.fence(path, 0)
    await bench.printed(path, f"\n{2 * bench.after_ms // 20}\n")
    assert bench.runtime.observe(path).state is State.RUNNING
    bench.runtime.fence(path, bench.after_ms)  # which was over long ago
    assert (await bench.ended(path)).fault is not None


async def test_a_deadline_that_is_noticed_late_leaves_so_much_less_time_to_end(
    bench: Bench,
) -> None:
    path = bench.python(DEAF)
    await bench.printed(path, "deaf")
    bench.contact.note(boot_now_ms() - 40_000)
    noticed_s = time.monotonic()
    bench.runtime.fence(path, 30_000)
    assert (await bench.ended(path)).signal == signal.SIGKILL
    assert time.monotonic() - noticed_s < 8, "and not the 10 s that it has otherwise"


async def test_a_rank_whose_deadline_has_passed_is_not_started(bench: Bench) -> None:
    bench.contact.note(boot_now_ms() - bench.after_ms)
    path = bench.python("print('started')", fence_after_ms=bench.after_ms)
    rank = await bench.ended(path)
    assert rank.fault is not None
    assert rank.fault.category is Category.NODE_LOST
    assert not (path / STDOUT).exists() or not (path / STDOUT).stat().st_size


async def test_a_rank_without_a_deadline_outlives_any_silence(bench: Bench) -> None:
    bench.contact.note(1)
    path = bench.python("print('all is well')")
    assert (await bench.ended(path)).succeeded
