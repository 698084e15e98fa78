"""Both clients offer every call of the API, with the same names and arguments."""

from __future__ import annotations

import inspect

import scaimind
from scaimind.client import (
    AsyncClient,
    Client,
    calls,
    drain_calls,
    health_calls,
    key_calls,
    usage_calls,
)
from scaimind.v1 import key_service_pb2, mind_coordinator_pb2

ROOMS = (calls, drain_calls, health_calls, key_calls, usage_calls)


def builders() -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(each)
        for room in ROOMS
        for name, each in inspect.getmembers(room, inspect.isfunction)
        if each.__module__ == room.__name__ and not name.startswith("_")
    }


def test_both_clients_have_every_call_with_its_arguments() -> None:
    for kind in (Client, AsyncClient):
        for name, signature in builders().items():
            _, *parameters = inspect.signature(getattr(kind, name)).parameters.values()
            assert parameters == list(signature.parameters.values()), f"{kind.__name__}.{name}"
            assert getattr(kind, name).__doc__


def test_every_method_of_the_services_can_be_called() -> None:
    public = [
        method.name
        for file in (mind_coordinator_pb2.DESCRIPTOR, key_service_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
        if method.name != "ResolveCredential"
    ]
    source = "".join(map(inspect.getsource, ROOMS))
    assert [name for name in public if f'"{name}"' not in source] == []


def test_the_package_offers_the_clients_and_their_errors() -> None:
    assert scaimind.Client is Client
    assert scaimind.AsyncClient is AsyncClient
    assert issubclass(scaimind.NotFound, scaimind.MindError)
    assert set(scaimind.__all__) <= set(dir(scaimind))
