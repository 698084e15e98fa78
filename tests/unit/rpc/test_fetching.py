"""What agents tell of their data is kept for nodes that there are, and for no others."""

from __future__ import annotations

from coordinator.rpc.fetching import Fetching
from coordinator.runtime.clock import Clock
from scaimind.agent.v1 import agent_service_pb2 as agent_api


def told(node_id: str) -> agent_api.ReportCacheRequest:
    return agent_api.ReportCacheRequest(node_id=node_id, entries_count=1, used_bytes=7)


def test_what_a_node_told_is_dropped_once_it_was_removed() -> None:
    fetching = Fetching(Clock())
    lease = agent_api.ObservedLease(lease_id="j.1.0", prepared_bytes=1, preparing_bytes=2)
    for number in range(50):  # each is removed before the next one joins
        node_id = f"n{number}"
        fetching.prepared(node_id, [lease])
        fetching.hold(told(node_id), {node_id: None})
    assert fetching.cache("n49").used_bytes == 7
    assert fetching.cache("n48").used_bytes == 0
    assert list(fetching._amounts) == ["n49"]
