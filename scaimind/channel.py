"""Channels to the coordinator: plain, or TLS with or without a certificate of one's own.

The gateway, the agents, the clients and the command line all open theirs here. TLS is spoken as soon as
anything of it is named; a server that does not prove its name, or speaks no TLS, is never talked to.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

import grpc
import grpc.aio

from scaimind import leader

SYSTEM = "system"
PEM_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to speak TLS with a coordinator; all empty is not at all. Files are PEM.

    `ca` is the file of the authorities that may vouch for it, or `system` for those that this machine
    trusts; `cert` and `key` are the caller's own, where the coordinator asks for them; `name` is the name
    in the coordinator's certificate, where that is not its address.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    name: str = ""

    def __bool__(self) -> bool:
        return bool(self.ca or self.cert or self.key or self.name)

    @classmethod
    def from_environment(cls) -> Tls:
        """What MIND_TLS_CA, MIND_TLS_CERT, MIND_TLS_KEY and MIND_TLS_NAME say."""
        words = {name: os.environ.get(f"MIND_TLS_{name.upper()}", "") for name in cls.__slots__}
        return cls(**words)

    def check(self) -> None:
        """Reads what is named.

        Raises:
            ValueError: a file cannot be read or used; or there is a certificate without its key.
        """
        if bool(self.cert) != bool(self.key):
            raise ValueError("tls_cert and tls_key go together")
        if self.ca and self.ca != SYSTEM:
            check_authorities(self.ca)
        if self.cert:
            check_pair(self.cert, self.key)


def check_pair(cert: str, key: str) -> None:
    """Looks whether a certificate and a private key belong together.

    Raises:
        ValueError: they do not, or a file cannot be read.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except OSError as error:
        raise ValueError(f"tls_cert {cert} and tls_key {key}: {_why(error)}") from error


def check_authorities(ca: str) -> None:
    """Looks whether a file has certificates of authorities.

    Raises:
        ValueError: it has none, or cannot be read.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
    except OSError as error:
        raise ValueError(f"tls_ca {ca}: {_why(error)}") from error


def open_aio(server: str, options: leader.Options, *, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel of the running event loop to HOST:PORT, or to whichever of several leads.

    Raises:
        ValueError: a file of `tls` cannot be used.
    """
    target, chosen = leader.target(server), leader.options(server, options)
    if not tls:
        return grpc.aio.insecure_channel(target, options=chosen)
    return grpc.aio.secure_channel(target, _credentials(tls), options=_named(chosen, tls, server))


def open_blocking(server: str, options: leader.Options, *, tls: Tls | None = None) -> grpc.Channel:
    """The same for threads; see open_aio."""
    target, chosen = leader.target(server), leader.options(server, options)
    if not tls:
        return grpc.insecure_channel(target, options=chosen)
    return grpc.secure_channel(target, _credentials(tls), options=_named(chosen, tls, server))


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    tls.check()
    return grpc.ssl_channel_credentials(
        root_certificates=None if tls.ca in ("", SYSTEM) else read_pem(tls.ca),
        private_key=read_pem(tls.key) if tls.key else None,
        certificate_chain=read_pem(tls.cert) if tls.cert else None,
    )


def _named(options: leader.Options, tls: Tls, server: str) -> leader.Options:
    """The options with the name that the certificate must bear, where gRPC would not find it."""
    name = tls.name
    if not name and "," in server:
        # The names of a list are looked up before gRPC sees them; all of them must prove one name.
        name = leader.split(server)[0].rpartition(":")[0].strip("[]")
    return (*options, ("grpc.ssl_target_name_override", name)) if name else options


def read_pem(path: str) -> bytes:
    """What a PEM file holds.

    Raises:
        ValueError: it cannot be read, or is too large.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(PEM_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if len(data) > PEM_BYTES_MAX:
        raise ValueError(f"{path} is no PEM file")
    return data


def _why(error: OSError) -> str:
    return str(error.reason if isinstance(error, ssl.SSLError) else error.strerror)
