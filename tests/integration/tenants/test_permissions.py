"""Every method with each permission, over gRPC and REST: the right one is enough, the others are not.

What operators alone may do takes the tenant of the installation as well.
"""

from __future__ import annotations

from scaimind.v1 import options_pb2
from scaimind.v1.mind_coordinator_pb2 import ListQueuesRequest
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
OPERATORS = {
    name
    for name, method in METHODS.items()
    if method.GetOptions().Extensions[options_pb2.rule].operators_only
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
            assert denied is not (bool(held & any_of) and name not in OPERATORS), (name, held)


async def test_over_rest_a_route_takes_the_permission_that_it_names_and_no_other(
    two: Two,
) -> None:
    rest = two.world.rest
    for held, caller in (await callers(two)).items():
        rest.headers.update(two.world.headers(caller))
        for name, any_of in SUFFICIENT.items():
            for asked in over_http(name, ROWS[name](NOWHERE)[0]):
                answer = await rest.request(**asked.words)
                allowed = bool(held & any_of) and name not in OPERATORS
                assert (answer.status_code == 403) is not allowed, (name, held)
                if answer.status_code == 403:
                    error = answer.json()["error"]
                    assert error["code"] == "AUTHZ_PERMISSION_DENIED"
                    assert all(f"scaimind:{one.lower()}" in error["message"] for one in any_of)


async def test_what_all_tenants_share_is_changed_by_operators_alone(two: Two) -> None:
    assert {"SetNodeHealth", "SetQueue", "RemoveQueue", "Simulate"} == OPERATORS
    boss = await two.world.house.caller("local", "CLUSTER_ADMIN")
    for name in sorted(OPERATORS, reverse=True):  # it is set, then removed
        assert "of tenant local" in await over_grpc(two.other, name, ROWS[name](NOWHERE)[0])
        assert "denied" not in await over_grpc(boss, name, ROWS[name](NOWHERE)[0])
        (asked,) = over_http(name, ROWS[name](NOWHERE)[0])
        two.world.rest.headers.update(two.world.headers(two.other))
        answer = await two.world.rest.request(**asked.words)
        assert answer.json()["error"]["message"].endswith("of tenant local")


async def test_an_admin_sees_the_limits_of_the_own_tenant_and_of_no_other(two: Two) -> None:
    seen = {}
    for tenant in ("alpha-tenant", "beta-tenant", "local"):
        caller = await two.world.house.caller(tenant, "CLUSTER_ADMIN")
        queues = (await caller.call("ListQueues", ListQueuesRequest())).queues
        seen[tenant] = {one.name: dict(one.tenant_limits) for one in queues}["shared"]
    every = {"alpha-tenant": 9, "*": 5}
    assert seen == {"alpha-tenant": every, "beta-tenant": {"*": 5}, "local": every}
