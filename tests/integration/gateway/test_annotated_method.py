"""A service that the gateway has never heard of is served from its annotations alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.catalog import Catalog, Method
from tests.integration.gateway.scripted import OPEN, World, world
from tests.proto.compiled import descriptor_set


@pytest.fixture
async def library() -> AsyncIterator[World]:
    """A gateway of the test-only protos; every key may do everything."""
    catalog = Catalog(descriptor_set())
    async with world(catalog=catalog) as made:
        who = message_of(catalog, "Whose")

        async def resolve(request: Any, context: Any) -> Any:
            assert len(request.digest) == 64
            return who(tenant_id="acme", user_id="ann", permissions=[1, 2])

        made.coordinator.resolve = resolve  # type: ignore[method-assign]
        yield made


def message_of(catalog: Catalog, method: str) -> Any:
    """The class of a method's answer."""
    found: Method = next(one for one in catalog.methods if one.name == method)
    return found.response_class


async def test_path_variables_fill_nested_fields(library: World) -> None:
    book = message_of(library.gateway.catalog, "GetBook")

    async def script(request: Any, context: Any) -> Any:
        return book(title=f"{request.shelf.name}/{request.title}/{request.shelf.height}")

    library.coordinator.scripts["GetBook"] = script
    answer = await library.client.get("/shelves/top/books/a%20b?shelf.height=7")
    assert answer.json()["data"]["title"] == "top/a b/7"
    answer = await library.client.get(f"/shelves/{'x' * 17}/books/t")
    assert answer.json()["error"]["details"][0]["field"] == "shelf.name"


async def test_a_body_may_be_one_field_and_the_query_the_rest(library: World) -> None:
    book = message_of(library.gateway.catalog, "PutBook")

    async def script(request: Any, context: Any) -> Any:
        return book(title=f"{request.shelf}:{request.book.title}:{request.care}", cover=2)

    library.coordinator.scripts["PutBook"] = script
    answer = await library.client.put("/shelves/top/books?care=3", json={"title": "t"})
    assert answer.status_code == 202
    assert answer.json()["data"]["title"] == "top:t:3"
    assert answer.json()["data"]["cover"] == "HARD"
    answer = await library.client.post("/shelves/low:put", json={"title": "t"})
    assert answer.json()["data"]["title"] == "shelves/low:t:0"


async def test_a_missing_body_field_is_named(library: World) -> None:
    answer = await library.client.put("/shelves/top/books")
    assert answer.json()["error"]["details"] == [{"field": "book", "message": "value is required"}]


async def test_faults_inside_the_body_field_have_the_whole_path(library: World) -> None:
    body = {"shelves": [{"name": "a"}, {"name": 1}], "person": "p", "office": {}, "huge": -1}
    answer = await library.client.put("/shelves/top/books", json=body)
    assert {detail["field"] for detail in answer.json()["error"]["details"]} == {
        "book.shelves[1].name",
        "book.person",
        "book.huge",
    }


async def test_a_stream_of_any_service_is_served(library: World) -> None:
    pages = message_of(library.gateway.catalog, "ReadAloud")

    async def script(request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(OPEN)
        batch = pages()
        batch.events.add(id="1").page.number = 1
        batch.events.add(id="2").end.number = 2
        yield batch

    library.coordinator.scripts["ReadAloud"] = script
    answer = await library.client.get("/aloud/war/and/peace")
    assert answer.text == (
        "retry: 2000\n\n"
        'id: 1\nevent: page\ndata: {"number":1}\n\n'
        'id: 2\nevent: end\ndata: {"number":2}\n\n'
    )
    assert library.coordinator.requests[0].title == "war/and/peace"


async def test_its_description_has_its_comments(library: World) -> None:
    described = (await library.client.get("/openapi.json")).json()
    assert described["paths"]["/aloud/{title}"]["get"]["summary"] == "Reads a book aloud"
