"""TLS of the gRPC port. Files that are replaced are read again: a renewed certificate needs no restart."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from scaimind.channel import check_authorities, check_pair, read_pem

log = structlog.get_logger("coordinator.rpc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """PEM files to serve with; with `ca`, callers must present a certificate of its authorities."""

    cert: Path
    key: Path
    ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """What a port takes. Raises ValueError where the files cannot be used."""
        loaded = _Loaded(self)
        return grpc.dynamic_ssl_server_credentials(
            loaded.current(), loaded.current, require_client_authentication=self.ca is not None
        )


class _Loaded:
    """The files as they were read last. gRPC asks for changes at each handshake, from its threads."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._seen = self._stamp()
        self._configuration = self.read()

    def read(self) -> grpc.ServerCertificateConfiguration:
        tls = self._tls
        check_pair(str(tls.cert), str(tls.key))
        if tls.ca is not None:
            check_authorities(str(tls.ca))
        pair = (read_pem(str(tls.key)), read_pem(str(tls.cert)))
        authorities = None if tls.ca is None else read_pem(str(tls.ca))
        return grpc.ssl_server_certificate_configuration([pair], authorities)

    def current(self) -> grpc.ServerCertificateConfiguration:
        now = self._stamp()
        if now != self._seen:
            self._seen = now
            try:
                self._configuration = self.read()
                log.info("certificate_renewed")
            except ValueError as error:
                log.warning("certificate_not_renewed", reason=str(error))
        return self._configuration

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(path) for path in (self._tls.cert, self._tls.key, self._tls.ca) if path)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino
