"""A connection goes to the address that was checked, and TLS is held to the name that was asked for."""

from __future__ import annotations

import datetime
import socket
import ssl
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coordinator.data import web
from coordinator.data.reading import Budget
from coordinator.data.terms import Unreachable
from scaimind.service.reach.guard import NOT_ALLOWED
from tests.support.files import Answer, serving

NAME = "files.example"
ALLOWED = [ip_network("127.0.0.1/32")]


class Names:
    """A resolver whose answers change: each look-up takes the next address."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked: list[str] = []

    def __call__(self, name: str, port: int, **options: object) -> list[object]:
        self.asked.append(name)
        address = self.addresses.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


def read(url: str) -> bytes:
    reading = web.open_public(url, Budget(read_bytes=1000, seconds=10), allowed=ALLOWED)
    try:
        return b"".join(reading.pieces())
    finally:
        reading.stream.close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for NAME, and the file that makes it trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "both.pem"
    own = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(own + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, path


def test_a_name_is_looked_up_once_so_that_it_cannot_turn_inward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names("127.0.0.1", "169.254.169.254")
    monkeypatch.setattr(socket, "getaddrinfo", names)
    with serving({"/a": Answer(b"good")}) as server:
        port = server.url.rpartition(":")[2]
        assert read(f"http://{NAME}:{port}/a") == b"good"
        assert names.asked == [NAME]
        with pytest.raises(Unreachable, match=NOT_ALLOWED):
            read(f"http://{NAME}:{port}/a")
        assert server.asked == ["/a"]


def test_tls_is_held_to_the_name_though_the_address_is_fixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = certificate(tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", Names(*["127.0.0.1"] * 3))
    with serving({"/a": Answer(b"good")}, tls=context) as server:
        port = server.url.rpartition(":")[2]
        with pytest.raises(Unreachable, match="nothing answers there"):
            read(f"https://{NAME}:{port}/a")
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert read(f"https://{NAME}:{port}/a") == b"good"
        with pytest.raises(Unreachable, match="nothing answers there"):
            read(f"https://other.example:{port}/a")
        assert server.asked == ["/a"]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (301, "redirect"),
        (307, "redirect"),
        (401, "access is denied there"),
        (404, "there is no such file"),
        (500, "status 500"),
        (204, "status 204"),
    ],
)
def test_only_a_plain_answer_is_taken(status: int, says: str) -> None:
    with (
        serving({"/a": Answer(b"", status=status)}) as server,
        pytest.raises(Unreachable, match=says),
    ):
        read(f"{server.url}/a")
