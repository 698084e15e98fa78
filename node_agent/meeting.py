"""How the ranks of an attempt find each other, in the words of torchrun.

On one node they meet at its loopback, on any free port. On several they meet where rank 0 is, at the
address that its node gave to the coordinator, on a port that the coordinator chose; whether it is free
is seen there, before anything is started. Collective libraries would have each rank offer the address of
its machine's name, which may be of no use to others: they are told the interface that carries the
node's address.
"""

from __future__ import annotations

import errno
import socket

import psutil

from node_agent.command import Refused
from node_agent.core.leases import Category, Fault
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

LOOPBACK = "127.0.0.1"
_OF_INTERFACE = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


def environment(spec: agent_pb2.LeaseSpec) -> dict[str, str]:
    """Where the ranks of a lease meet, and which of them these are. Refused: not possible now."""
    return {
        "MASTER_ADDR": spec.master_address if spec.node_count > 1 else LOOPBACK,
        "MASTER_PORT": str(_port(spec)),
        "WORLD_SIZE": str(spec.world_size),
        "LOCAL_WORLD_SIZE": str(spec.local_world_size),
        "NODE_RANK": str(spec.node_rank),
        "GROUP_RANK": str(spec.node_rank),
        "NNODES": str(max(1, spec.node_count)),
    }


def interface_environment(spec: agent_pb2.LeaseSpec, address: str) -> dict[str, str]:
    """Which interface collective libraries use; nothing where that is not known or does not matter."""
    name = interface_of(address) if spec.node_count > 1 else ""
    return dict.fromkeys(_OF_INTERFACE, name) if name else {}


def interface_of(address: str) -> str:
    """The interface of this machine that carries an address or the address of a name; "" for none."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(address, None)}
    except OSError:
        return ""
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        if any(one.address.partition("%")[0] in found for one in addresses):
            return name
    return ""


def _port(spec: agent_pb2.LeaseSpec) -> int:
    if not spec.master_port:
        return _free_port()
    if spec.node_count > 1 and spec.node_rank == 0:
        _check_free(spec.master_port)
    return spec.master_port


def _check_free(port: int) -> None:
    """Refuses a port on which somebody listens: the next attempt has another one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            text = f"port {port}, at which the ranks were to meet, is taken on the node of rank 0"
            raise Refused(Fault(Category.NODE_LOST, text)) from None


def _free_port() -> int:
    """A port that nobody listens on now; the ranks meet there in a moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
