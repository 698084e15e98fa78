"""Clusters for the tests: one that they share, and a way to make one that may be hurt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.waiting import until

MakeCluster = Callable[..., Cluster]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes with CPU devices; shared, so nobody kills its programs or drains it for good."""
    with Cluster(tmp_path_factory.mktemp("shared") / "data", nodes=2) as running:
        yield running
        until(lambda: is_idle(running), lambda: f"all devices are free\n{running.story()}")


def is_idle(cluster: Cluster) -> bool:
    """Whether nothing runs on it: what was cancelled last may still be stopping."""
    totals = cluster.client.cluster()
    return totals.free_devices == totals.total_devices


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes clusters of the test's own; the options are those of Cluster."""
    with ExitStack() as stack:

        def make(name: str = "data", *, devices: str = "cpu", nodes: int = 1) -> Cluster:
            return stack.enter_context(Cluster(tmp_path / name, devices=devices, nodes=nodes))

        yield make
