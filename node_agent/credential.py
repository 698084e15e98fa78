"""The node's own credential: chosen here, kept here, known to the coordinator by its digest alone.

It is made when the agent has none, written down before the coordinator hears of it, and joined with the
join token; after that the join token is not sent again. Should the coordinator not know it any more (an
admin removed the node), a new one is joined in its place; the old one is kept until that has succeeded.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Awaitable
from pathlib import Path
from typing import Protocol

import structlog

from node_agent.files import sync
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

NAME, DRAFT = "node.key", "node.key.new"
BYTES_MAX = 1024
JOIN_WITHIN_S = 10.0

log = structlog.get_logger()

Metadata = tuple[tuple[str, str], ...]


class _Stub(Protocol):
    def Join(
        self, request: agent_pb2.JoinRequest, *, timeout: float, metadata: Metadata
    ) -> Awaitable[agent_pb2.JoinResponse]: ...


class Credential:
    """What the agent presents. `metadata` is for every call but the one that joins."""

    def __init__(self, folder: Path, *, node_id: str, join_token: str) -> None:
        """Reads the credential in the data folder, where there is one.

        Raises:
            OSError: it is there and cannot be read.
        """
        self._folder, self._node_id, self._join_token = folder, node_id, join_token
        self._secret = _read(folder / NAME, node_id)
        self._refused = False

    @property
    def metadata(self) -> Metadata:
        """Empty before the node has joined."""
        return _bearer(self._secret) if self._secret else ()

    def refused(self) -> None:
        """The coordinator does not know it: the node joins anew, where it may."""
        self._refused = True

    async def ready(self, stub: _Stub) -> None:
        """Joins, where there is nothing to present, or it was refused.

        Raises:
            grpc.aio.AioRpcError: the coordinator refused, or is out of reach.
            OSError: a new credential cannot be written down.
        """
        if not self._join_token or (self._secret and not self._refused):
            return
        self._refused = False  # whatever comes now, the one that is kept is tried again
        secret = self._draft()
        digest = hashlib.sha256(secret.encode()).hexdigest()
        request = agent_pb2.JoinRequest(node_id=self._node_id, credential_sha256=digest)
        await stub.Join(request, timeout=JOIN_WITHIN_S, metadata=_bearer(self._join_token))
        (self._folder / DRAFT).replace(self._folder / NAME)
        self._secret = secret
        log.info("joined", node_id=self._node_id)

    def _draft(self) -> str:
        """The credential that is to be joined; one that was drafted before may be known already."""
        path = self._folder / DRAFT
        known = _read(path, self._node_id)
        if known:
            return known
        secret = f"nk_{self._node_id}.{secrets.token_urlsafe(32)}"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secret.encode())
        finally:
            os.close(descriptor)
        sync(path)
        return secret


def _read(path: Path, node_id: str) -> str:
    """The node's credential in a file; "" where there is none, or that of a node of another name."""
    try:
        with path.open("rb") as file:
            text = file.read(BYTES_MAX).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
    name, _, secret = text.removeprefix("nk_").rpartition(".")
    return text if text.startswith("nk_") and name == node_id and len(secret) >= 32 else ""


def _bearer(secret: str) -> Metadata:
    return (("authorization", f"Bearer {secret}"),)
