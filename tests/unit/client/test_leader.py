"""What gRPC is told, so that a channel finds the one of several coordinators that leads."""

from __future__ import annotations

import pytest

from scaimind import leader
from scaimind.client.connection import is_local
from scaimind.service.settings import check_server

MINE = (("grpc.keepalive_time_ms", 20_000), ("mine", 1))


@pytest.mark.parametrize(
    ("server", "target"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("coordinator.example:1", "coordinator.example:1"),
        ("dns:///coordinators:50051", "dns:///coordinators:50051"),
        ("127.0.0.1:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (" 127.0.0.1:1 , 127.0.0.2:2 ,", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        ("[::1]:1,127.0.0.1:2", "ipv6:[::1]:1,[::ffff:127.0.0.1]:2"),
        ("nobody.invalid:1,127.0.0.1:2", "ipv4:127.0.0.1:2"),
        ("nobody.invalid:1,none.invalid:2", "nobody.invalid:1"),
    ],
)
def test_addresses_become_one_target(server: str, target: str) -> None:
    assert leader.target(server) == target


def test_a_channel_to_one_coordinator_is_as_it_was() -> None:
    assert leader.options("127.0.0.1:1", MINE) == MINE


@pytest.mark.parametrize("server", ["127.0.0.1:1,127.0.0.1:2", "dns:///coordinators:1"])
def test_a_channel_to_several_watches_their_health_and_pings_them(server: str) -> None:
    options = dict(leader.options(server, MINE))
    assert options["mine"] == 1
    assert options["grpc.service_config"] == leader.SERVING_ONLY[1]
    assert options["grpc.keepalive_time_ms"] == leader.PING_EVERY_MS


@pytest.mark.parametrize("server", ["a:1", "a:1,b:2", "[::1]:1, b:2", "dns:///a:1"])
def test_good_addresses_are_taken_as_they_are(server: str) -> None:
    assert check_server(server) == server


@pytest.mark.parametrize("server", ["", ",", "a", "a:1,b", "a:1,b:99999", "dns:///a"])
def test_bad_addresses_are_refused(server: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|no address"):
        check_server(server)


@pytest.mark.parametrize(
    ("server", "local"),
    [("127.0.0.1:1,localhost:2", True), ("127.0.0.1:1,elsewhere:2", False), ("elsewhere:1", False)],
)
def test_a_list_is_of_this_machine_only_where_all_of_it_is(server: str, local: bool) -> None:
    assert is_local(server) is local
