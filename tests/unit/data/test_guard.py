"""No spelling of an inner address gets past the guard, and all refusals read the same."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from coordinator.data.terms import Unreachable
from scaimind.service.reach import guard

INNER = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.100.100.200")
OTHERS = (
    "0.0.0.0",
    "127.255.255.254",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[2001::1]",
    "[::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.1",
    "127.0.1",
    "0",
    "0x0",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "127.0.0.1.",
    "127.0.0.1%00.example.org",
    "user@127.0.0.1",
    "example.org@127.0.0.1",
    "127.0.0.1\\@example.org",
    "example.org\\@127.0.0.1",
    " 127.0.0.1",
    "127.0.0.1\t",
    "[127.0.0.1]",
    "a..example.org",
    "-.example.org",
    "example.org:0",
    "example.org:99999",
    "example.org:",
    "",
)


def spellings(text: str) -> list[str]:
    """Ways to write one IPv4 address that some program takes for it."""
    address = IPv4Address(text)
    number, (a, b, c, d) = int(address), address.packed
    high, low = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
    return [
        text,
        str(number),
        hex(number),
        f"0{number:o}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"00{a:o}.{b}.{c}.{d}",
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{number & 0xFFFF}",
        f"0x{a:x}.{b}.0{c:o}.{d}",
        f"{a}.{b}.{c}.{d + 256}",
        f"[::ffff:{text}]",
        f"[::ffff:{high}:{low}]",
        f"[64:ff9b::{text}]",
        f"[2002:{high}:{low}::1]",
    ]


SPELLINGS = [*(one for text in INNER for one in spellings(text)), *OTHERS]


def test_there_are_at_least_120_spellings() -> None:
    assert len(set(SPELLINGS)) >= 120


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_inner_address_is_refused_however_it_is_written(spelling: str) -> None:
    for scheme in ("http", "https"):
        with pytest.raises(Unreachable) as caught:
            guard.places(guard.target(f"{scheme}://{spelling}/data.jsonl"), ())
        assert str(caught.value) == guard.NOT_ALLOWED


def test_a_name_with_one_inner_address_among_good_ones_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(*arguments: object, **options: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 80))
            for text in ("1.1.1.1", "10.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(Unreachable, match=guard.NOT_ALLOWED):
        guard.places(guard.target("http://example.org/"), ())


def test_public_addresses_are_taken_and_others_only_where_they_are_allowed() -> None:
    for text in ("1.1.1.1", "93.184.216.34", "2606:4700:4700::1111"):
        assert guard.is_public(ip_address(text))
    wanted = guard.target("http://127.0.0.1:8000/a?b=c")
    assert wanted == guard.Target("http", "127.0.0.1", 8000, "/a?b=c")
    (place,) = guard.places(wanted, [ip_network("127.0.0.0/8")])
    assert place.sockaddr == ("127.0.0.1", 8000)
    with pytest.raises(Unreachable):
        guard.places(wanted, [ip_network("10.0.0.0/8")])
    with pytest.raises(Unreachable):  # another spelling of what is allowed stays refused
        guard.places(guard.target("http://[::ffff:127.0.0.1]/"), [ip_network("127.0.0.0/8")])
