"""A tenant of the module's own in the shared cluster, and keys with other permissions of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from scaimind import Client
from tests.support.cluster import MODULE, Cluster

ALL = ("view", "manage", "cluster_admin", "evaluate")
MakeCaller = Callable[..., "Caller"]


class Caller:
    """One credential, over REST and gRPC."""

    def __init__(self, cluster: Cluster, key: str) -> None:
        self.key, self.cluster = key, cluster
        headers = {"authorization": f"Bearer {key}"}
        base = f"http://{cluster.http}{MODULE}"
        self.rest = httpx.Client(base_url=base, headers=headers, timeout=30.0, trust_env=False)
        self.grpc = Client(cluster.grpc, key)

    def close(self) -> None:
        """Hangs up."""
        self.rest.close()
        self.grpc.close()


@pytest.fixture(scope="module")
def make_caller(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[MakeCaller]:
    """Makes callers; of the module's own tenant unless another is named."""
    own = request.module.__name__.rpartition(".")[2].replace("_", "-")
    with ExitStack() as stack:

        def make(*permissions: str, tenant: str = own) -> Caller:
            made = cluster.client.create_key(tenant, permissions=permissions or ALL)
            caller = Caller(cluster, made.key)
            stack.callback(caller.close)
            return caller

        yield make


@pytest.fixture(scope="module")
def caller(make_caller: MakeCaller) -> Caller:
    """May do everything in a tenant of the module's own."""
    return make_caller()
