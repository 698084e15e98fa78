"""Requests into messages: path, query, headers and body together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bind import Binder
from gateway.catalog import BadCatalog, Catalog, HttpBinding
from gateway.entries import WHOLE_BYTES, Entries, Refused
from gateway.http_rule import parse
from gateway.json_in import JsonReader
from gateway.routes import Route, build
from gateway.status import Failure
from tests.proto.compiled import descriptor_set

CATALOG = Catalog.default()
TABLE = build(CATALOG)
READER = JsonReader()
BINDERS = {route: Binder(route, READER) for route in TABLE.routes}


def bind(
    verb: str,
    path: str,
    *,
    query: str = "",
    body: str = "",
    headers: dict[bytes, bytes] | None = None,
) -> Any:
    """The message of a request."""
    found = TABLE.find(verb, path)
    assert found is not None
    return BINDERS[found.route].bind(
        found.variables, query=query.encode(), headers=headers or {}, body=body.encode()
    )


def faults(*request: str, **more: Any) -> dict[str, str]:
    """The faults of a request that is refused with 422."""
    with pytest.raises(Failure) as refused:
        bind(*request, **more)
    assert refused.value.http_status == 422
    return dict(refused.value.details)


def status_of(*request: str, **more: Any) -> int:
    """The status that a request is refused with; 0 where it is taken."""
    try:
        bind(*request, **more)
    except Failure as refused:
        return refused.http_status
    return 0


def test_path_and_body_fill_one_message() -> None:
    request = bind("POST", "/jobs/j1/cancel", body='{"reason": "wrong data"}')
    assert (request.job_id, request.reason) == ("j1", "wrong data")


def test_a_field_in_path_and_body_must_agree() -> None:
    assert bind("POST", "/jobs/j1/cancel", body='{"job_id": "j1"}').job_id == "j1"
    assert faults("POST", "/jobs/j1/cancel", body='{"job_id": "j2"}') == {
        "job_id": "differs from the path"
    }


def test_a_key_in_header_and_body_must_agree() -> None:
    headers = {b"idempotency-key": b"k1"}
    assert bind("POST", "/jobs/j/cancel", headers=headers).request_id == "k1"
    body = '{"request_id": "k2"}'
    assert faults("POST", "/jobs/j/cancel", headers=headers, body=body) == {
        "request_id": "differs from Idempotency-Key"
    }
    assert bind("GET", "/jobs/j", headers=headers).job_id == "j"


def test_a_key_that_is_too_long_is_refused() -> None:
    assert set(faults("POST", "/jobs/j/cancel", headers={b"idempotency-key": b"x" * 257})) == {
        "request_id"
    }


def test_bounds_of_the_protos_hold_for_paths_and_queries() -> None:
    assert set(faults("GET", "/jobs/" + "x" * 129)) == {"job_id"}
    assert set(
        faults("GET", "/jobs", query="page_size=101&order_by=colour&status=STATUS_UNSPECIFIED")
    ) == {
        "page_size",
        "order_by",
        "status[0]",
    }


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("colour=red", {"colour"}),
        ("page_size=", {"page_size"}),
        ("page_size=1&page_size=2", {"page_size"}),
        ("page_size=1.0", {"page_size"}),
        ("page_size=0x10", {"page_size"}),
        ("page_size=99999999999999999999999", {"page_size"}),
        ("status=queued", {"status[0]"}),
        ("status=QUEUED&status=5", {"status[1]"}),
        ("label=x", {"label[0]"}),
        ("job_id=x", {"job_id"}),
    ],
)
def test_query_faults_are_named(query: str, fields: set[str]) -> None:
    assert set(faults("GET", "/jobs", query=query)) == fields


def test_a_path_variable_cannot_be_given_again_by_the_query() -> None:
    assert faults("GET", "/jobs/j1", query="job_id=j1") == {"job_id": "unknown query parameter"}


def test_a_body_takes_the_place_of_the_query() -> None:
    assert faults("POST", "/jobs/j1/cancel", query="reason=x") == {
        "reason": "unknown query parameter"
    }


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("1", True), ("false", False), ("0", False)]
)
def test_booleans_of_a_query(text: str, value: bool) -> None:
    assert bind("GET", "/jobs/j/logs", query=f"follow={text}").follow is value


def test_a_fault_of_type_is_not_also_told_as_missing() -> None:
    found = faults("POST", "/jobs", body='{"name": 1, "training_config": []}')
    assert found["name"] == "must be a string"
    assert found["training_config"] == "must be an object"
    assert found["data_config"] == "value is required"


@pytest.mark.parametrize(("body", "status"), [("{", 400), ("null", 422), ("[]", 422), ("7", 422)])
def test_a_body_that_is_no_object_is_refused(body: str, status: int) -> None:
    with pytest.raises(Failure) as refused:
        bind("POST", "/jobs/j/cancel", body=body)
    assert refused.value.http_status == status


def test_a_query_that_cannot_be_read_is_400() -> None:
    for query in ("label=%ff", "&".join(f"label=a%3D{n}" for n in range(300))):
        with pytest.raises(Failure) as refused:
            bind("GET", "/jobs", query=query)
        assert refused.value.http_status == 400


JOB = (
    '{"name": "x", "training_config": {"training_type": "SFT", "base_model": {"model_id": "m"},'
    ' "framework": {"type": "CUSTOM"}}, "data_config": {"sources": [{"path": "/x"}]},'
    ' "resource_config": {"gpu_count": 1}}'
)
BATCH = "/jobs/batch"


def apart(body: str) -> tuple[Any, Refused]:
    """The message of a batch, and what is wrong with its jobs."""
    found, refused = TABLE.find("POST", BATCH), Refused()
    assert found is not None
    binder = BINDERS[found.route]
    message = binder.bind({}, query=b"", headers={}, body=body.encode(), refused=refused)
    return message, refused


def batch(*jobs: str, rest: str = "") -> str:
    return f'{{"jobs": [{", ".join(jobs)}]{rest}}}'


def told(message: Any, refused: Refused, *, alike: int) -> list[dict[str, str]]:
    """What the answer tells of each job, where the coordinator refuses those with the indexes from 1 to
    `alike`, and says of the next one what the gateway does not know."""
    found = TABLE.find("POST", BATCH)
    assert found is not None
    entries = BINDERS[found.route].entries
    assert entries is not None
    response = found.route.method.response_class()
    for index in range(len(message.jobs)):
        result = response.results.add()
        if 0 < index <= alike + 1:
            result.error.code = "NEVER_FITS" if index > alike else "INVALID_ARGUMENT"
    assert entries.any_refused(response)
    entries.tell(message, refused, response=response)
    assert response.results[alike + 1].error.code == "NEVER_FITS"
    assert {one.error.code for one in response.results[1 : alike + 1]} == {"VALIDATION_ERROR"}
    return [{each.field: each.message for each in one.error.details} for one in response.results]


def test_what_is_wrong_with_a_job_of_a_batch_is_told_of_it_alone() -> None:
    unread = ["{}", '{"nmae": 1}', "7", JOB.replace("SFT", "SFTT")]
    bad = [*unread, JOB.replace('"x"', '""'), JOB.replace('"x"', f'"{"x" * 300}"')]
    message, refused = apart(batch(JOB, *bad, JOB, JOB))
    assert sorted(refused) == [2, 3, 4]
    first, *alone, unfit, last = told(message, refused, alike=len(bad))
    assert first == unfit == last == {}
    assert alone == [faults("POST", "/jobs", body=job) for job in bad]
    assert message.jobs[0] == message.jobs[-1] == bind("POST", "/jobs", body=JOB)
    marked = [message.jobs[index] for index in refused]
    assert len({one.request_id for one in marked}) == 1
    assert not any(one.name or one.HasField("training_config") for one in marked)
    other, _ = apart(batch(JOB, *bad[::-1], JOB, JOB))
    assert other.jobs[3] != message.jobs[3]


def test_what_is_wrong_with_a_job_of_a_batch_of_all_or_none_is_wrong_with_the_request() -> None:
    for rest in (', "atomic": true', ', "atomic": 1', ', "atomci": false'):
        with pytest.raises(Failure):
            apart(batch(JOB, "{}", rest=rest))
    found = faults("POST", BATCH, body=batch(JOB, '{"nmae": 1}', rest=', "atomic": true'))
    assert [*found][:2] == ["jobs[1].nmae", "jobs[1].name"]
    with pytest.raises(Failure):
        apart(batch(*["{}"] * 1001))
    assert apart(batch(JOB, rest=', "atomic": null'))[1] == {}


def test_what_is_told_of_the_jobs_of_a_batch_has_its_limit() -> None:
    bad = "{" + ", ".join(f'"f{number}": 1' for number in range(200)) + "}"
    _, refused = apart(batch(*[bad] * 100))
    assert {len(found) for found in refused.values()} == {100, 1}
    assert sum(map(len, refused.values())) <= 1100


def test_what_is_told_of_jobs_out_of_bounds_has_its_limit() -> None:
    labels = ", ".join(f'"a={number}": "b"' for number in range(200))
    bad = JOB.replace('"name": "x"', f'"name": "x", "labels": {{{labels}}}')
    message, refused = apart(batch(*[bad] * 51, JOB, JOB))
    assert refused == {}
    _, *alone, _, _ = told(message, refused, alike=50)
    assert {len(found) for found in alone} == {100, 1}
    assert sum(map(len, alone)) <= 1100


def test_of_jobs_that_are_large_only_the_first_bound_is_looked_for() -> None:
    needs = ", ".join(['""'] * (WHOLE_BYTES // 8))
    bad = JOB.replace(
        '"name": "x"', f'"name": "x", "scheduling_config": {{"depends_on": [{needs}]}}'
    )
    message, refused = apart(batch(*[bad] * 6, JOB, JOB))
    _, *alone, _, _ = told(message, refused, alike=5)
    assert [len(found) > 1 for found in alone] == [True] * 3 + [False] * 2


def test_items_are_judged_by_themselves_only_where_the_answer_has_a_place_for_it() -> None:
    method = next(one for one in CATALOG.methods if one.name == "BatchSubmitJobs")
    submit = next(one for one in CATALOG.methods if one.name == "SubmitJob")
    for other in (
        replace(method, each="atomic"),
        replace(method, each="nothing"),
        replace(method, response=submit.response),
    ):
        with pytest.raises(BadCatalog):
            Entries(other, READER)


@given(st.text(max_size=60), st.sampled_from(["/jobs", "/jobs/j/logs", "/cluster/nodes", "/queue"]))
@settings(max_examples=50, deadline=None)
def test_any_query_is_bound_or_refused(query: str, path: str) -> None:
    assert status_of("GET", path, query=query.encode("ascii", "replace").decode()) in (0, 400, 422)


@given(st.binary(max_size=60))
@settings(max_examples=50, deadline=None)
def test_any_body_is_bound_or_refused(body: bytes) -> None:
    found = TABLE.find("POST", "/jobs")
    assert found is not None
    with pytest.raises(Failure) as refused:
        BINDERS[found.route].bind({}, query=b"", headers={}, body=b"{}" + body)
    assert refused.value.http_status in (400, 422)


@given(st.binary(max_size=40), st.binary(max_size=40))
@settings(max_examples=50, deadline=None)
def test_any_header_is_bound_or_refused(key: bytes, last: bytes) -> None:
    headers = {b"idempotency-key": key, b"last-event-id": last}
    for verb, path in (("POST", "/jobs/j/cancel"), ("GET", "/jobs/j/logs")):
        assert status_of(verb, path, headers=headers) in (0, 422)


@pytest.mark.parametrize(
    ("path", "body"), [("/{nothing}", ""), ("/{years}", ""), ("/x", "nothing"), ("/{book}", "")]
)
def test_a_rule_that_does_not_fit_the_message_refuses_to_start(path: str, body: str) -> None:
    library = Catalog(descriptor_set())
    method = next(one for one in library.methods if one.name == "PutBook")
    with pytest.raises(BadCatalog):
        Binder(Route(method, HttpBinding("POST", path, body), parse(path)), JsonReader())
