"""What Prometheus reads of a driver."""

from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from coordinator.core.commands import ObservedLease
from coordinator.core.records import LeaseState
from coordinator.runtime.driver import Driver
from coordinator.runtime.metrics import DriverCollector, families, metrics_served
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.settings import CoordinatorSettings
from coordinator.store.memory import MemoryStore
from tests.support.ports import Port
from tests.unit.runtime.stores import a_command, a_driver, running
from tests.unit.runtime.test_driver import a_sync


async def a_busy_driver() -> Driver:
    store = MemoryStore()
    await store.open()
    return a_driver(store)


def values(driver: Driver) -> dict[str, float]:
    """Every sample by its name and labels."""
    return {
        f"{sample.name}{sample.labels or ''}": sample.value
        for family in families(driver)
        for sample in family.samples
    }


async def test_counters_and_what_lives_are_told_by_status() -> None:
    driver = await a_busy_driver()
    async with running(driver):
        await driver.submit(a_sync(1))
        await driver.submit(a_command("job_a"))
        await driver.submit(a_command("job_b", request_id="r"))
        with pytest.raises(Refusal):
            await driver.submit(a_command("job_c", gpus=9))
        found = values(driver)
    assert found["mind_commands_total"] == 4
    assert found["mind_jobs{'status': 'SCHEDULING'}"] == 1
    assert found["mind_jobs{'status': 'QUEUED'}"] == 1
    assert found["mind_nodes{'status': 'READY'}"] == 1
    assert found["mind_refusals_total{'reason': 'NEVER_FITS'}"] == 1
    assert (found["mind_leases"], found["mind_leading"], found["mind_epoch"]) == (1, 1, 1)
    commits = found["mind_commits_total"]
    assert found["mind_commit_seconds_bucket{'le': '+Inf'}"] == commits >= 3
    assert found["mind_commit_seconds_count"] == commits


async def test_leases_that_nobody_knows_are_counted_by_node() -> None:
    driver = await a_busy_driver()
    async with running(driver):
        lease = ObservedLease(lease_id="job_x.1.0", epoch=1, state=LeaseState.RUNNING)
        await driver.submit(replace(a_sync(1), leases=(lease,)))
        assert values(driver)["mind_unknown_leases{'node': 'n1'}"] == 1
        await driver.submit(a_sync(2))
        assert not [name for name in values(driver) if name.startswith("mind_unknown")]


async def test_a_driver_that_stopped_does_not_lead() -> None:
    driver = await a_busy_driver()
    async with running(driver):
        await driver.submit(a_command("job_a"))
    assert values(driver)["mind_leading"] == 0


async def test_a_scrape_reads_the_loop_from_another_thread() -> None:
    driver = await a_busy_driver()
    registry = CollectorRegistry()
    registry.register(DriverCollector(driver, asyncio.get_running_loop()))
    text = (await asyncio.to_thread(generate_latest, registry)).decode()
    assert "# TYPE mind_commit_seconds histogram" in text
    assert "mind_commands_total 0.0" in text


async def test_the_endpoint_answers_while_it_is_served_and_is_gone_after() -> None:
    driver = await a_busy_driver()
    with Port() as port:
        async with metrics_served(driver, str(port)):
            text = await asyncio.to_thread(read, f"http://{port}/metrics")
        assert "mind_epoch" in text
        with pytest.raises(OSError, match="refused"):
            await asyncio.to_thread(read, f"http://{port}/metrics")


async def test_nothing_is_served_by_default() -> None:
    driver = await a_busy_driver()
    async with metrics_served(driver, None):
        assert CoordinatorSettings.load("coordinator", []).metrics is None


def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        CoordinatorSettings.load("coordinator", ["--metrics", "nowhere"])
    assert "--metrics" in capsys.readouterr().err


def read(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=60) as answer:
        return str(answer.read().decode())
