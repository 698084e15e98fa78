"""The description of what is served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.app import create_app
from gateway.catalog import Catalog
from gateway.docs_page import render
from gateway.upstream import Upstream
from tests.proto.compiled import descriptor_set


def described(catalog: Catalog) -> dict[str, Any]:
    return create_app(Upstream("nowhere:1"), catalog=catalog).described.document


DOCUMENT = described(Catalog.default())


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@pytest.mark.parametrize("document", [DOCUMENT, described(Catalog(descriptor_set()))])
def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


def test_every_route_is_described_with_its_comment_and_permission() -> None:
    operations = [op for verbs in DOCUMENT["paths"].values() for op in verbs.values()]
    assert len(operations) >= 25
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"] for operation in operations)
    assert all("Needs " in operation["description"] for operation in operations)


def test_bounds_and_comments_of_fields_are_there() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    fields = schemas["ResourceConfig"]["properties"]
    assert (fields["gpu_fraction"]["exclusiveMinimum"], fields["gpu_fraction"]["maximum"]) == (0, 1)
    assert fields["gpu_type"]["maxLength"] == 512
    assert fields["node_selector"]["maxProperties"] == 32
    assert fields["node_selector"]["propertyNames"]["maxLength"] == 128
    assert "rack" in fields["within"]["enum"]
    assert "any" in fields["gpu_type"]["description"]
    assert schemas["SubmitJobRequest"]["required"] == [
        "name",
        "training_config",
        "data_config",
        "resource_config",
    ]
    assert "PAUSED" in schemas["Job.Status"]["enum"]
    assert schemas["Job.Status"]["x-enum-descriptions"]["PAUSED"].startswith("Held")
    assert schemas["Job"]["properties"]["eta_seconds"]["type"] == ["number", "null"]
    assert schemas["Job"]["properties"]["created_at"]["format"] == "date-time"


def test_a_request_says_all_that_it_takes_and_an_answer_all_that_it_has() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    pause = schemas["PauseJobBody"]
    assert set(pause["properties"]) == {
        "save_checkpoint",
        "checkpoint_timeout_seconds",
        "on_timeout",
    }
    assert pause["additionalProperties"] is False
    assert schemas["BenchmarkInput"]["required"] == ["name"]
    assert "null" in schemas["BenchmarkInput"]["properties"]["num_samples"]["type"]
    assert schemas["Benchmark"]["properties"]["num_samples"]["type"] == "integer"
    assert set(schemas["Benchmark"]["required"]) == set(schemas["Benchmark"]["properties"])
    assert "additionalProperties" not in schemas["Benchmark"]
    kinds = schemas["TrainingConfigInput"]["properties"]["training_type"]["enum"]
    assert "SFT" in kinds
    assert "TRAINING_TYPE_UNSPECIFIED" not in kinds


def test_streams_tell_their_events() -> None:
    operation = DOCUMENT["paths"]["/jobs/{job_id}/logs"]["get"]
    events = operation["responses"]["200"]["content"]["text/event-stream"]["x-events"]
    assert set(events) == {"log", "gap", "end"}
    names = {parameter["name"]: parameter["in"] for parameter in operation["parameters"]}
    assert names["job_id"] == "path"
    assert names["tail"] == "query"
    assert names["Last-Event-Id"] == "header"


def test_success_has_the_status_of_the_rule() -> None:
    assert "201" in DOCUMENT["paths"]["/jobs"]["post"]["responses"]
    assert "200" in DOCUMENT["paths"]["/jobs"]["get"]["responses"]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render(DOCUMENT).decode()
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("<h3") >= 23 + len(DOCUMENT["components"]["schemas"])


def test_text_in_comments_cannot_become_markup() -> None:
    document = msgspec.json.decode(msgspec.json.encode(DOCUMENT))
    document["components"]["schemas"]["Job"]["description"] = "<script>alert(1)</script>"
    assert b"<script" not in render(document)
