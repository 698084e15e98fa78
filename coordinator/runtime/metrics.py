"""What Prometheus reads: counters of the driver, and what lives, by status.

The endpoint is a plain HTTP thread; it asks the event loop for each answer, so that nothing is counted
while it changes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from coordinator.runtime.driver import COMMIT_BUCKETS_S, Driver
from coordinator.runtime.view import View, node_status
from scaimind.service.settings import split_address

ANSWER_S = 5.0


class DriverCollector(Collector):
    """Reads a driver that lives in an event loop, from another thread."""

    def __init__(self, driver: Driver, loop: asyncio.AbstractEventLoop) -> None:
        self._driver = driver
        self._loop = loop

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked before the first scrape."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The families. Raises TimeoutError when the loop does not answer."""
        return asyncio.run_coroutine_threadsafe(self._look(), self._loop).result(ANSWER_S)

    async def _look(self) -> list[Metric]:
        return families(self._driver)


@asynccontextmanager
async def metrics_served(driver: Driver, address: str | None) -> AsyncIterator[None]:
    """Serves the metrics of a driver at HOST:PORT; nowhere for None. Raises OSError."""
    if address is None:
        yield
        return
    host, port = split_address(address)
    registry = CollectorRegistry()
    registry.register(DriverCollector(driver, asyncio.get_running_loop()))
    server, thread = start_http_server(port, host, registry)
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


def families(driver: Driver) -> list[Metric]:
    """All metrics as of now."""
    figures, view = driver.figures, driver.view
    refusals = CounterMetricFamily(
        "mind_refusals", "Commands refused by the core.", labels=["reason"]
    )
    for reason, count in sorted(figures.rejected_total.items()):
        refusals.add_metric([str(reason)], count)
    busy = {
        node_id
        for node_id, leases in view.leases_by_node.items()
        if any(not lease.is_ended for lease in leases.values())
    }
    nodes = Counter(node_status(node, busy=node_id in busy) for node_id, node in view.nodes.items())
    return [
        CounterMetricFamily("mind_commands", "Commands decided.", value=figures.commands_total),
        CounterMetricFamily("mind_commits", "Batches made durable.", value=figures.commits_total),
        CounterMetricFamily("mind_events", "Facts made durable.", value=figures.events_total),
        CounterMetricFamily("mind_reloads", "Loads of the state.", value=figures.reloads_total),
        refusals,
        _commits(driver),
        GaugeMetricFamily("mind_leading", "1 while commands are taken.", value=driver.leading),
        GaugeMetricFamily("mind_epoch", "Fencing epoch of this leader.", value=view.epoch),
        GaugeMetricFamily("mind_commands_waiting", "Commands in the queue.", value=driver.waiting),
        _by_status(
            "mind_jobs", "Live jobs.", Counter(job.status.value for job in view.jobs.values())
        ),
        _by_status("mind_nodes", "Known nodes.", nodes),
        GaugeMetricFamily(
            "mind_leases",
            "Leases that agents hold.",
            value=sum(map(len, view.leases_by_node.values())),
        ),
        _unknown(view),
        _used(view),
    ]


def _by_status(name: str, text: str, counts: Counter[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["status"])
    for status, count in sorted(counts.items()):
        family.add_metric([status], count)
    return family


def _unknown(view: View) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "mind_unknown_leases", "Leases that agents hold and nobody knows.", labels=["node"]
    )
    for node_id, unknown in sorted(view.unknown.items()):
        family.add_metric([node_id], len(unknown.lease_ids))
    return family


def _used(view: View) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "mind_leased_device_seconds",
        "What leases that have ended were used for.",
        labels=["queue", "class"],
    )
    for (queue_name, use), amount_us in sorted(view.booked.items()):
        family.add_metric([queue_name, use.name.lower()], amount_us / 1e6)
    return family


def _commits(driver: Driver) -> HistogramMetricFamily:
    figures = driver.figures
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*COMMIT_BUCKETS_S, "+Inf"), figures.commit_buckets, strict=True):
        total += count
        buckets.append((str(bound), total))
    return HistogramMetricFamily(
        "mind_commit_seconds",
        "Time until a batch was durable.",
        buckets=buckets,
        sum_value=figures.commit_seconds,
    )
