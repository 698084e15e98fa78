"""Keeps http(s) on public ground: which addresses may be connected to, and which URLs are read at all.

A URL is taken apart once, its name is resolved once, every address is checked, and the connection goes to
a checked address: nothing is looked up a second time. A refusal has one text, whatever was wrong, so that
nobody can map an inner network by asking.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from scaimind.service.reach import Closed

NOT_ALLOWED = "its address is unknown or not allowed"
PORTS = {"http": 80, "https": 443}
ADDRESSES_MAX = 8
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_TEXT = re.compile(r"[!-\[\]-~]+")  # visible ASCII without the backslash
_PUBLIC_6 = IPv6Network("2000::/3")  # all that is routed; what wraps IPv4 lies outside or is below
_CLOSED: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "168.63.129.16/32",  # the platform service of a cloud, though public by number
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "224.0.0.0/3",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)


class Target(NamedTuple):
    """Where a URL points; `name` is sent to the server, `resource` is path and query."""

    scheme: str
    name: str
    port: int
    resource: str


class Place(NamedTuple):
    """An address that was checked, as the socket takes it."""

    family: int
    sockaddr: tuple[str, int]


def target(url: str) -> Target:
    """Takes a URL apart. Raises Unreachable where it is not plainly written."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Closed(NOT_ALLOWED) from None
    scheme = parts.scheme.lower()
    plain = _TEXT.fullmatch(url) and scheme in PORTS and "@" not in parts.netloc
    name = parts.hostname or ""
    if not plain or not _is_name(name) or port == 0 or parts.netloc.endswith(":"):
        raise Closed(NOT_ALLOWED)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme, name, port or PORTS[scheme], resource)


def places(wanted: Target, allowed: Sequence[Network]) -> list[Place]:
    """Addresses of a target that may be connected to; all of them are good, or none is.

    Raises:
        Unreachable: the name has no address, or one that is not allowed.
    """
    try:
        found = socket.getaddrinfo(wanted.name, wanted.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Closed(NOT_ALLOWED) from None
    taken = [Place(one[0], (str(one[4][0]), wanted.port)) for one in found[:ADDRESSES_MAX]]
    if not taken or not all(is_allowed(one.sockaddr[0], allowed) for one in taken):
        raise Closed(NOT_ALLOWED)
    return taken


def is_allowed(text: str, allowed: Sequence[Network]) -> bool:
    """Whether an address is public, or in a network that the administrator allows."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if any(address in network for network in allowed):
        return True
    return is_public(address)


def is_public(address: Address) -> bool:
    """Whether an address is anybody's on the internet. What wraps an IPv4 address in IPv6 is not."""
    if isinstance(address, IPv6Address) and (address.scope_id or address not in _PUBLIC_6):
        return False
    closed = any(address in network for network in _CLOSED)
    return address.is_global and not address.is_multicast and not closed


def _is_name(name: str) -> bool:
    """Whether it is a name of DNS, or an address in its one usual spelling."""
    if ":" in name:
        try:
            return IPv6Address(name).scope_id is None
        except ValueError:
            return False
    labels = name.removesuffix(".").split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return False
    if not _NUMERIC.fullmatch(labels[-1]):
        return True
    try:
        return str(IPv4Address(name)) == name
    except ValueError:
        return False
