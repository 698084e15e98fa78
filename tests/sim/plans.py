"""What simulated jobs ask for and how they behave once they run. The coordinator knows none of it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from coordinator.core.records import WHOLE, Demand, OnUnreachable, Policy
from tests.sim.clock import SECOND

TENANTS = ("acme", "umbrella")


@dataclass(frozen=True, slots=True)
class Plan:
    """A job and its behaviour."""

    name: str
    tenant_id: str
    demand: Demand
    policy: Policy
    priority: int
    duration_ms: int
    fails: int  # so many attempts fail before one succeeds; a large number never does
    exit_code: int | None  # None: it cannot be started at all
    hangs: bool  # it goes on until it is stopped
    on_stop: (
        str  # obeys, ignores (until the grace ends), done (saves and says so), stuck (for minutes)
    )
    checkpoints: bool  # by itself, and when it is asked to
    wants_dependency: bool
    delay_ms: int  # when it is submitted
    watched: bool = False  # its agent looks whether it comes on
    wanted_in_ms: int = 0  # a deadline, from when it is submitted; 0 is none
    after_ms: int = 0  # how long it is to wait at least, from then
    image: str = ""  # that it runs in a container; "" is none
    every_ms: int = 0  # it saves so often, and never because it is asked to; 0 is otherwise
    stalls: int = 0  # in so many attempts it stands still half way, and never ends by itself


def draw_plan(rng: Random, number: int, *, types: list[str], storm_ms: int) -> Plan:
    """A job of any shape."""
    units = rng.choice((1, 1, 1, 1, 2, 2, 3, 4, 8, 12))
    ranks = rng.choice((0, 0, 1)) if units in (2, 4, 8) else 0
    fails = rng.choice((0, 0, 0, 0, 1, 2, 99))
    on_stop = rng.choice(("obeys", "obeys", "obeys", "ignores", "ignores", "done", "done", "stuck"))
    # what SIGKILL does not reach cannot be fenced: nobody can prove that it has stopped
    replaces = rng.random() < 0.4 and on_stop != "stuck"
    return Plan(
        name=f"p{number}",
        tenant_id=rng.choice(TENANTS),
        demand=Demand(
            device_count=units,
            thousandths=(WHOLE, 500, 300, WHOLE, 250)[number % 5] if units == 1 else WHOLE,
            device_type="|".join(types) if number % 7 == 3 else rng.choice(("", rng.choice(types))),
            node_count=rng.choice((0, 0, 0, 1, 2)) if units % 2 == 0 and not ranks else 0,
            world_size=units // 2 if ranks else 0,
            cpu_count=rng.choice((0, 0, 4, 40)),
            exclusive=number % 11 == 5,
        ),
        policy=Policy(
            max_retries=rng.choice((0, 1, 3)),
            retry_on_exit_codes=(75,) if rng.random() < 0.2 and fails < 9 else (),
            start_after_ms=0,
            preemptible=rng.random() < 0.8,
            requeue_on_preemption=rng.random() < 0.6,
            expected_duration_ms=(0, 0, 5, 30, 90)[number % 5] * SECOND,
            max_runtime_ms=rng.choice((0, 0, 0, 20 * SECOND)),
            grace_ms=rng.choice((0, 1, 5, 30, 30)) * SECOND,
            on_unreachable=OnUnreachable.REPLACE if replaces else OnUnreachable.KEEP,
        ),
        priority=rng.choice((1, 5, 5, 10)),
        duration_ms=rng.choice((1, 200, 5 * SECOND, 20 * SECOND, 60 * SECOND, 120 * SECOND)),
        fails=fails,
        exit_code=rng.choice((1, 1, 1, 75, 137, None)),
        hangs=rng.random() < 0.12,
        on_stop=on_stop,
        checkpoints=rng.random() < 0.6,
        wants_dependency=rng.random() < 0.15,
        delay_ms=rng.randint(0, storm_ms * 3 // 4),
    )
