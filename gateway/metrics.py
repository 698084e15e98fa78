"""What the gateway counts, for Prometheus. Labels are route templates and codes, never paths, ids
or tenants, so that their number is bounded."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
_VERBS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


class Metrics:
    """The counters of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        """Makes them, all at zero."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "scaimind_gateway_requests",
            "Requests by route template, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "scaimind_gateway_request_seconds",
            "Time from the request to the end of the answer; streams are not in it.",
            ("route",),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._upstream_errors = Counter(
            "scaimind_gateway_upstream_errors",
            "Calls of the coordinator that did not end well, by gRPC code.",
            ("route", "code"),
            registry=self.registry,
        )
        self._events = Counter(
            "scaimind_gateway_stream_events",
            "Events sent over SSE.",
            ("route",),
            registry=self.registry,
        )
        self.streams = Gauge(
            "scaimind_gateway_open_streams", "Open SSE streams.", registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        self._children: dict[tuple[Any, ...], Any] = {}
        self._streaming: set[str] = set()

    def mark_stream(self, route: str) -> None:
        """Leaves a route out of the times: a stream lasts as long as its reader likes."""
        self._streaming.add(route)

    def request(self, verb: str, route: str, *, status: int, took_s: float) -> None:
        """Counts one request."""
        verb = verb if verb in _VERBS else "OTHER"
        self._child(self._requests, route, verb, str(status)).inc()
        if route not in self._streaming:
            self._child(self._seconds, route).observe(took_s)

    def events(self, route: str, count: int) -> None:
        """Counts events that were sent."""
        self._child(self._events, route).inc(count)

    def upstream_error(self, route: str, code: str) -> None:
        """Counts a call that did not end well."""
        self._child(self._upstream_errors, route, code).inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _child(self, metric: Any, *labels: str) -> Any:
        """The counter of these labels; looking it up here is far cheaper than in the library."""
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child
