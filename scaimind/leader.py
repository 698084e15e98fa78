"""A channel to whichever coordinator leads.

Theory of operation. Of several coordinators one says SERVING to gRPC's health checks. Every channel
watches the health of all of them and sends calls only to the one that serves, so whoever calls finds the
leader without a line of code, milliseconds after it began to serve. One that is frozen answers no ping, and
is left after a few seconds.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence

Options = Sequence[tuple[str, int | str]]

SERVING_ONLY = (
    "grpc.service_config",
    json.dumps(
        {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
    ),
)
NAME_OF_ALL = "dns:///"
PING_EVERY_MS = 2000
PING_ANSWERED_WITHIN_MS = 2000
RETRY_FIRST_MS, RETRY_MAX_MS = 100, 500


def is_several(server: str) -> bool:
    """Whether these are several coordinators: a list, or a name (`dns:///NAME:PORT`) of all of them."""
    return "," in server or server.startswith(NAME_OF_ALL)


def split(server: str) -> list[str]:
    """The addresses of a list."""
    return [one.strip() for one in server.split(",") if one.strip()]


def target(server: str) -> str:
    """What gRPC is to be given for HOST:PORT, or for several, parted by commas.

    The names of a list are looked up once, now; those that nobody knows are left out. Where addresses
    change, a single name of all coordinators is looked up again by gRPC itself.
    """
    if "," not in server:
        return server
    found = [address for one in split(server) for address in _look_up(one)]
    if not found:
        return split(server)[0]
    if all(host.version == 4 for host, _ in found):
        return "ipv4:" + ",".join(f"{host}:{port}" for host, port in found)
    return "ipv6:" + ",".join(f"[{_as_ipv6(host)}]:{port}" for host, port in found)


def options(server: str, others: Options = ()) -> Options:
    """The options of a channel: the given ones, and what it takes to find the leader of several."""
    if not is_several(server):
        return others
    ours: dict[str, int | str] = {
        "grpc.keepalive_time_ms": PING_EVERY_MS,
        "grpc.keepalive_timeout_ms": PING_ANSWERED_WITHIN_MS,
        "grpc.http2.ping_timeout_ms": PING_ANSWERED_WITHIN_MS,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.initial_reconnect_backoff_ms": RETRY_FIRST_MS,
        "grpc.min_reconnect_backoff_ms": PING_ANSWERED_WITHIN_MS,
        "grpc.max_reconnect_backoff_ms": RETRY_MAX_MS,
        SERVING_ONLY[0]: SERVING_ONLY[1],
    }
    return tuple((dict(others) | ours).items())


_Host = ipaddress.IPv4Address | ipaddress.IPv6Address


def _look_up(address: str) -> list[tuple[_Host, int]]:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError):
        return []
    hosts = dict.fromkeys(str(where[0]) for *_, where in found)
    return [(ipaddress.ip_address(one), int(port)) for one in hosts if "%" not in one]


def _as_ipv6(host: _Host) -> str:
    return f"::ffff:{host}" if isinstance(host, ipaddress.IPv4Address) else str(host)
