"""Every method with each permission, over gRPC and REST: the right one is enough, the others are not."""

from __future__ import annotations

from scaimind.v1 import options_pb2
from tests.integration.coordinator.house import ALL, Caller
from tests.integration.tenants.conftest import NOWHERE, Two
from tests.integration.tenants.rows import METHODS, ROWS, over_http
from tests.integration.tenants.test_matrix import over_grpc

SUFFICIENT = {
    name: frozenset(
        options_pb2.Permission.Name(number)
        for number in method.GetOptions().Extensions[options_pb2.rule].any_of
    )
    for name, method in METHODS.items()
}
NOTHING_NEEDED: set[str] = set()  # no method is open to whoever has a credential


def test_every_method_asks_for_a_permission() -> None:
    assert {name for name, any_of in SUFFICIENT.items() if not any_of} == NOTHING_NEEDED


async def callers(two: Two) -> dict[frozenset[str], Caller]:
    """One with each permission alone, and one with all but it."""
    sets = [frozenset((one,)) for one in ALL]
    sets += [frozenset(ALL) - {one} for one in ALL]
    return {held: await two.world.house.caller("beta-tenant", *sorted(held)) for held in sets}


async def test_over_grpc_a_method_takes_the_permission_that_it_names_and_no_other(
    two: Two,
) -> None:
    for held, caller in (await callers(two)).items():
        for name, any_of in SUFFICIENT.items():
            told = await over_grpc(caller, name, ROWS[name](NOWHERE)[0])
            needed = " or ".join(sorted(f"scaimind:{one.lower()}" for one in any_of))
            denied = f"this needs {needed}" in told
            assert denied is not bool(held & any_of), (name, held)


async def test_over_rest_a_route_takes_the_permission_that_it_names_and_no_other(
    two: Two,
) -> None:
    rest = two.world.rest
    for held, caller in (await callers(two)).items():
        rest.headers.update(two.world.headers(caller))
        for name, any_of in SUFFICIENT.items():
            for asked in over_http(name, ROWS[name](NOWHERE)[0]):
                answer = await rest.request(**asked.words)
                assert (answer.status_code == 403) is not bool(held & any_of), (name, held)
                if answer.status_code == 403:
                    error = answer.json()["error"]
                    assert error["code"] == "AUTHZ_PERMISSION_DENIED"
                    assert all(f"scaimind:{one.lower()}" in error["message"] for one in any_of)
