"""How long nobody takes a job when the leader is killed, frozen, or told to end: two coordinators on one
Redis, with 10,000 live jobs."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.report import Figure, Row, Target
from scaimind.client import Client, MindError
from tests.support import jobs
from tests.support.several import Coordinator, Several

LIVE_JOBS = 10_000
AT_ONCE = 32
ROUNDS = 3
TTL_S = 3.0
LIMIT_S = 60.0
AT_MOST = Target(5.0, at_most=True, of_ratio=False, unit="s")


def rows() -> list[Row]:
    """Fail-over after kill -9, after SIGSTOP, after SIGTERM; worst of some rounds."""
    folder = Path(tempfile.mkdtemp(prefix="failover-"))
    try:
        with Several(folder, ttl_s=TTL_S) as several:
            _fill(several.client)
            return [
                _row(several, "kill -9 of the leader", _killed),
                _row(several, "SIGSTOP of the leader", _frozen),
                _row(several, "SIGTERM of the leader", _ended),
            ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(client: Client) -> None:
    """Live jobs: all but the first wait for devices."""
    body = jobs.body("/bin/sleep", args="3600")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda _: client.submit(body), range(LIVE_JOBS)):
            pass


def _row(several: Several, what: str, harm: Callable[[Coordinator], None]) -> Row:
    worst_s = max(_outage_s(several, harm) for _ in range(ROUNDS))
    name = f"{what}, {LIVE_JOBS:,} live jobs: until a job is taken (worst of {ROUNDS})"
    return Row(name, Figure(worst_s, "s"), target=AT_MOST)


def _outage_s(several: Several, harm: Callable[[Coordinator], None]) -> float:
    """Seconds from the harm to the first job that is taken; everybody is well again then."""
    leader = several.leader()
    body = jobs.body("/bin/true")
    began_s = time.monotonic()
    harm(leader)
    while True:
        try:
            with Client(several.server, several.key, retry_s=0, timeout_s=1) as client:
                client.submit(body)
            break
        except MindError:
            if time.monotonic() - began_s > LIMIT_S:
                raise
    outage_s = time.monotonic() - began_s
    leader.kill()
    leader.start()
    leader.wait_until_it_stands_by()
    return outage_s


def _killed(leader: Coordinator) -> None:
    leader.kill()


def _frozen(leader: Coordinator) -> None:
    leader.send(signal.SIGSTOP)


def _ended(leader: Coordinator) -> None:
    leader.send(signal.SIGTERM)
