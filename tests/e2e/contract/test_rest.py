"""Section 2: the module over HTTP."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.e2e.contract.conftest import Caller, MakeCaller
from tests.support import jobs
from tests.support.cluster import MODULE, Cluster
from tests.support.waiting import until

VIEW, MANAGE, ADMIN, EVALUATE = "view", "manage", "cluster_admin", "evaluate"
ENDPOINTS = (
    ("GET", "/jobs", (VIEW,), 200),
    ("POST", "/jobs", (MANAGE,), 201),
    ("POST", "/jobs/batch", (MANAGE,), 200),
    ("GET", "/jobs/{job_id}", (VIEW,), 200),
    ("POST", "/jobs/{job_id}/cancel", (MANAGE,), 200),
    ("POST", "/jobs/{job_id}/pause", (MANAGE,), 200),
    ("POST", "/jobs/{job_id}/resume", (MANAGE,), 200),
    ("POST", "/jobs/{job_id}/retry", (MANAGE,), 201),
    ("GET", "/jobs/{job_id}/metrics", (VIEW,), 200),
    ("GET", "/jobs/{job_id}/logs", (VIEW,), 200),
    ("GET", "/jobs/{job_id}/metrics/stream", (VIEW,), 200),
    ("GET", "/cluster", (VIEW,), 200),
    ("GET", "/cluster/nodes", (VIEW,), 200),
    ("GET", "/cluster/nodes/{node_id}", (VIEW,), 200),
    ("POST", "/cluster/nodes/{node_id}/drain", (ADMIN,), 200),
    ("POST", "/cluster/nodes/{node_id}/enable", (ADMIN,), 200),
    ("GET", "/queue", (VIEW,), 200),
    ("GET", "/evaluations", (VIEW, EVALUATE), 200),
    ("POST", "/evaluations", (EVALUATE,), 201),
    ("GET", "/evaluations/{evaluation_id}", (VIEW, EVALUATE), 200),
    ("POST", "/data/validate", (MANAGE,), 200),
    ("GET", "/data/cache", (MANAGE,), 200),
)
LATER = {"start_after": "2100-01-01T00:00:00Z"}
RECORD = {
    "job_id", "name", "tenant_id", "user_id", "status", "status_reason", "priority", "queue_name",
    "labels", "parent_job_id", "training_config", "data_config", "resource_config",
    "output_config", "scheduling_config", "attempt", "attempts_count", "progress", "eta_seconds",
    "latest_metrics", "checkpoints", "output_model_uri", "error", "estimated_wait_seconds",
    "created_at", "updated_at", "started_at", "completed_at",
}  # fmt: skip
WHOLE: dict[str, Any] = {
    "name": "whole",
    "training_config": {
        "training_type": "LORA",
        "base_model": {
            "model_id": "none", "revision": "r", "source": "hub", "tokenizer_id": "t",
            "dtype": "bfloat16", "trust_remote_code": True, "model_kwargs": {"a": "b"},
        },
        "framework": {
            "type": "CUSTOM", "config": {"args": "-x"}, "custom_script_path": "/bin/true",
            "source_uri": "",
            "distributed": {
                "world_size": 1, "backend": "gloo", "strategy": "ddp", "config": {"c": "d"},
            },
        },
        "hyperparameters": {"lr": "1e-4"},
        "environment": {"A": "1"},
        "resume_from_checkpoint": "/nowhere",
        "max_retries": 2,
        "priority": 7,
    },
    "data_config": {
        "sources": [{
            "path": "/dev/null", "type": "file", "split": "train", "format": "jsonl",
            "columns": ["text"], "filters": {"lang": "en"},
            "sampling": {"fraction": 0.5, "max_samples": 10, "weight": 2.0},
        }],
        "preprocess": {
            "tokenizer": {"use_fast": "true"}, "add_bos": True, "add_eos": False,
            "padding": "longest", "truncation": "right", "chat_template": "{{ x }}",
            "field_mapping": {"text": "body"},
        },
        "max_seq_length": 128, "batch_size": 4, "gradient_accumulation_steps": 2,
        "num_workers": 1, "pin_memory": True, "validation_split": 0.1, "seed": 42,
        "storage_mounts": [],
    },
    "resource_config": {
        "gpu_count": 1, "gpu_fraction": 1.0, "gpu_type": "CPU", "gpu_memory_gb": 0.001,
        "node_count": 1, "cpu_count": 1, "memory_gb": 0.001, "disk_gb": 0.001, "shm_gb": 0.001,
        "node_selector": {}, "max_runtime_seconds": 60, "image": "", "within": "", "exclusive": False,
    },
    "output_config": {
        "output_uri": "", "model_name": "m", "checkpoint_uri": "",
        "checkpoint_interval_steps": 5, "keep_checkpoints": 2, "export_format": "SAFETENSORS",
    },
    "scheduling_config": {
        "queue_name": "q", "preemptible": False, "requeue_on_preemption": False,
        "start_after": "2100-01-01T00:00:00Z", "deadline": "2101-01-01T00:00:00Z",
        "depends_on": [], "expected_duration_seconds": 10, "checkpoint_grace_seconds": 5,
        "on_unreachable": "REPLACE", "retry_on_exit_codes": [3, 4],
        "retry_on": ["NETWORK"], "fail_on": ["GPU_OOM"], "on_hang": "RESTART", "hang_after_seconds": 900,
    },
    "labels": {"team": "nlp"},
}  # fmt: skip


def held(caller: Caller, **more: Any) -> str:
    """A job that waits for a day that is far off."""
    answer = caller.rest.post("/jobs", json=jobs.body("/bin/true", scheduling=LATER) | more)
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["data"]["job_id"]
    return job_id


def data(answer: httpx.Response, status: int = 200) -> Any:
    """The payload of a success."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert set(said) == {"status", "data", "meta"}
    assert said["status"] == "ok"
    assert said["meta"]["request_id"] == answer.headers["x-request-id"]
    return said["data"]


def faults(answer: httpx.Response) -> list[str]:
    """The fields that a 422 names."""
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    return [fault["field"] for fault in error["details"]]


def test_every_endpoint_is_served_with_its_permission_and_success(cluster: Cluster) -> None:
    described = cluster.rest.get("/openapi.json").json()["paths"]
    for method, path, permissions, success in ENDPOINTS:
        operation = described[path][method.lower()]
        assert str(success) in operation["responses"], path
        named = [name for name in (VIEW, MANAGE, ADMIN, EVALUATE) if f":{name}`" in str(operation)]
        assert tuple(named) == permissions, path


def test_each_endpoint_wants_one_of_its_permissions_and_no_other(make_caller: MakeCaller) -> None:
    for name in (VIEW, MANAGE, ADMIN, EVALUATE):
        one = make_caller(name, tenant="permissions")
        for method, path, permissions, _ in ENDPOINTS:
            answer = one.rest.request(method, re.sub(r"{\w+}", "none", path))
            assert (answer.status_code != 403) == (name in permissions), answer.text
            if answer.status_code == 403:
                error = answer.json()["error"]
                assert error["code"] == "AUTHZ_PERMISSION_DENIED"
                assert f"scaimind:{permissions[0]}" in error["message"]


def test_a_whole_submit_body_comes_back_in_the_record_as_it_was_sent(caller: Caller) -> None:
    submitted = data(caller.rest.post("/jobs", json=WHOLE), 201)
    assert set(submitted) == {"job_id", "status", "message", "estimated_wait_seconds"}
    record = data(caller.rest.get(f"/jobs/{submitted['job_id']}"))
    assert set(record) >= RECORD
    assert {name: record[name] for name in WHOLE} == WHOLE
    assert (record["priority"], record["queue_name"], record["status"]) == (7, "q", "PENDING")
    assert set(record["status_reason"]) == {"code", "message"}
    assert record["created_at"].endswith("Z")


def test_defaults_are_those_of_the_contract(caller: Caller) -> None:
    record = data(caller.rest.get(f"/jobs/{held(caller)}"))
    assert (record["priority"], record["queue_name"], record["progress"]) == (5, "default", 0.0)
    assert record["tenant_id"] == "test-rest"


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"name": ""}, 422, "name"),
        ({"tenant_id": "other"}, 422, "tenant_id"),
        ({"labels": {"a": None}}, 422, 'labels["a"]'),
        ({"labels": {"a": [1]}}, 422, 'labels["a"]'),
        ({"training_config": {}}, 422, "training_config.training_type"),
        ({"resource_config": {"gpu_count": "1"}}, 422, "resource_config.gpu_count"),
        ({"resource_config": {"gpu_count": 0}}, 400, "resource_config.gpu_count"),
        ({"resource_config": {"gpu_count": 2, "gpu_fraction": 0.5}}, 400, "resource_config.gpu_fraction"),
        ({"resource_config": {"gpu_count": 3, "node_count": 2}}, 400, "resource_config.node_count"),
        ({"resource_config": {"gpu_count": 1, "gpu_type": "H9"}}, 400, "resource_config.gpu_type"),
        ({"resource_config": {"gpu_count": 1, "image": "A b"}}, 400, "resource_config.image"),
        ({"data_config": {"sources": []}}, 400, "data_config.sources"),
        ({"data_config": {"validation_split": 1.5}}, 422, "data_config.validation_split"),
        ({"output_config": {"keep_checkpoints": 0}}, 422, "output_config.keep_checkpoints"),
        ({"output_config": {"export_format": "X"}}, 422, "output_config.export_format"),
        ({"scheduling_config": {"start_after": "soon"}}, 422, "scheduling_config.start_after"),
        ({"scheduling_config": {"on_unreachable": "X"}}, 422, "scheduling_config.on_unreachable"),
        ({"scheduling_config": {"depends_on": ["no"]}}, 400, "scheduling_config.depends_on"),
        (
            {"scheduling_config": {"retry_on_exit_codes": [0]}},
            422,
            "scheduling_config.retry_on_exit_codes[0]",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_named(
    caller: Caller, change: dict[str, Any], status: int, field: str
) -> None:
    answer = caller.rest.post("/jobs", json=jobs.body("/bin/true") | change)
    assert answer.status_code == status, answer.text
    assert field in [fault["field"] for fault in answer.json()["error"]["details"]]


def test_required_parts_of_a_submit_are_named_when_they_are_missing(caller: Caller) -> None:
    missing = ["name", "training_config", "data_config", "resource_config"]
    assert faults(caller.rest.post("/jobs")) == missing


def test_string_maps_keep_numbers_and_booleans_as_their_json_text(caller: Caller) -> None:
    body = jobs.body("/bin/true", scheduling=LATER, training={"hyperparameters": {"lr": "@"}})
    text = json.dumps(body | {"labels": {"on": True, "n": 3}}).replace('"@"', "1.50e-4")
    headers = {"content-type": "application/json"}
    job_id = data(caller.rest.post("/jobs", content=text, headers=headers), 201)["job_id"]
    record = data(caller.rest.get(f"/jobs/{job_id}"))
    assert record["labels"] == {"on": "true", "n": "3"}
    assert record["training_config"]["hyperparameters"] == {"lr": "1.50e-4"}


def test_lists_come_in_pages_with_filters_order_and_a_total(make_caller: MakeCaller) -> None:
    caller = make_caller(tenant="pages")
    many = [jobs.body("/bin/true", name=f"j{n:02}", scheduling=LATER) for n in range(25)]
    many[3]["labels"] = {"team": "nlp", "kind": "x"}
    results = data(caller.rest.post("/jobs/batch", json={"jobs": many}))["results"]
    assert all(one["job"]["status"] == "PENDING" for one in results)
    first = data(caller.rest.get("/jobs"))
    assert (len(first["jobs"]), first["total_count"]) == (20, 25)
    params = {"page_token": first["next_page_token"]}
    last = data(caller.rest.get("/jobs", params=params))
    assert (len(last["jobs"]), last["next_page_token"]) == (5, "")
    named = [job["name"] for job in (*first["jobs"], *last["jobs"])]
    assert sorted(named) == [f"j{n:02}" for n in range(25)]
    assert len({job["job_id"] for job in first["jobs"]}) == 20

    def names(**query: Any) -> list[str]:
        return [job["name"] for job in data(caller.rest.get("/jobs", params=query))["jobs"]]

    assert names(order_by="name", page_size=2) == ["j00", "j01"]
    assert names(order_by="name desc", page_size=1) == ["j24"]
    assert names(label=["team=nlp", "kind=x"]) == ["j03"]
    assert names(label=["team=nlp", "kind=y"]) == []
    assert len(names(status=["PENDING", "FAILED"], page_size=100)) == 25
    assert names(status="COMPLETED") == []
    for field in ("created_at", "updated_at", "priority", "status"):
        assert len(names(order_by=field, page_size=100)) == 25
    assert names(name_prefix="j2", order_by="name") == [f"j2{n}" for n in range(5)]
    assert len(names(queue_name="default", page_size=100)) == 25
    assert names(queue_name="night") == names(parent_job_id="job_none") == []
    moment = first["jobs"][0]["created_at"]  # of all: they were accepted by one commit
    assert len(names(created_after=moment, page_size=100)) == 25
    assert names(created_before=moment) == []
    other = caller.rest.get("/jobs", params=params | {"label": "a=b"})
    assert (other.status_code, other.json()["error"]["details"][0]["field"]) == (400, "page_token")


@pytest.mark.parametrize(
    "query",
    [
        "page_size=0", "page_size=101", "page_size=x", "status=pending", "status=NO",
        "order_by=size", "label=a", "foo=1", "page_size=1&page_size=2", "name=x",
    ],
)  # fmt: skip
def test_a_query_that_does_not_fit_is_refused_and_named(caller: Caller, query: str) -> None:
    (field,) = faults(caller.rest.get(f"/jobs?{query}"))
    assert field.partition("[")[0] == query.partition("=")[0]


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "retry"])
def test_the_body_of_an_action_is_optional_and_unknown_fields_are_refused(
    caller: Caller, action: str
) -> None:
    empty = caller.rest.post(f"/jobs/none/{action}")
    assert (empty.status_code, empty.json()["error"]["code"]) == (404, "JOB_NOT_FOUND")
    assert faults(caller.rest.post(f"/jobs/none/{action}", json={"resaon": "x"})) == ["resaon"]


def test_a_batch_answers_each_job_in_order_and_is_all_or_none_where_asked(caller: Caller) -> None:
    good = jobs.body("/bin/true", scheduling=LATER)
    bad = jobs.body("/bin/true", gpu_count=0)
    one, two = data(caller.rest.post("/jobs/batch", json={"jobs": [good, bad]}))["results"]
    assert one["job"]["job_id"]
    assert one["error"] is None
    assert two["job"] is None
    assert two["error"]["code"] == "INVALID_ARGUMENT"
    assert two["error"]["details"][0]["field"] == "resource_config.gpu_count"
    before = data(caller.rest.get("/jobs"))["total_count"]
    body = {"jobs": [good, bad], "atomic": True}
    one, two = data(caller.rest.post("/jobs/batch", json=body))["results"]
    assert (one["job"], one["error"]["code"]) == (None, "BATCH_REFUSED")
    assert data(caller.rest.get("/jobs"))["total_count"] == before
    assert faults(caller.rest.post("/jobs/batch", json={"jobs": [good] * 1001})) == ["jobs"]


def test_what_does_not_fit_in_a_batch_is_told_of_the_job_alone_as_if_it_came_alone(
    caller: Caller,
) -> None:
    good = jobs.body("/bin/true", scheduling=LATER)
    training = {"training_config": good["training_config"] | {"training_type": "SFTT"}}
    bad: list[Any] = [
        good | {"name": ""}, good | {"nmae": "x", "labels": {"a=b": "c"}}, good | training,
        good | {"resource_config": {"gpu_count": "many"}}, good | {"labels": {"k": []}}, {}, None, 5,
    ]  # fmt: skip
    before = data(caller.rest.get("/jobs"))["total_count"]
    headers, sent = {"Idempotency-Key": "a-batch"}, {"jobs": [good, *bad, good]}
    answer = caller.rest.post("/jobs/batch", json=sent, headers=headers)
    first, *refused, last = data(answer)["results"]
    assert first["job"]["job_id"] != last["job"]["job_id"]
    for body, one in zip(bad, refused, strict=True):
        alone = caller.rest.post("/jobs", json=body)
        if body is not None:  # which alone is an empty body
            assert alone.status_code == 422
            assert one == {"job": None, "error": alone.json()["error"]}
        assert one["error"]["code"] == "VALIDATION_ERROR"
    assert [one["field"] for one in refused[1]["error"]["details"]] == ["nmae", 'labels["a=b"]']
    again = caller.rest.post("/jobs/batch", json=sent, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert data(again) == data(answer)
    assert data(caller.rest.get("/jobs"))["total_count"] == before + 2
    for other in ({"jobs": [good, *bad[1:], good, good]}, {"jobs": [good, *bad[::-1], good]}):
        refusal = caller.rest.post("/jobs/batch", json=other, headers=headers)
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (409, "REQUEST_ID_REUSED")


def test_what_does_not_fit_refuses_a_batch_of_all_or_none_and_so_does_a_fault_of_its_own(
    caller: Caller,
) -> None:
    good = jobs.body("/bin/true", scheduling=LATER)
    bad, worse = good | {"name": ""}, good | {"nmae": "x"}
    before = data(caller.rest.get("/jobs"))["total_count"]
    body: Any = {"jobs": [good, bad, worse], "atomic": True}
    assert faults(caller.rest.post("/jobs/batch", json=body)) == ["jobs[2].nmae", "jobs[1].name"]
    for body, field in (
        ({"jobs": [good, bad], "atomic": "yes"}, "atomic"),
        ({"jobs": [good, bad], "atomci": True}, "atomci"),
        ({"jobs": []}, "jobs"),
        ({}, "jobs"),
        ({"jobs": good}, "jobs"),
        ({"jobs": [good] * 1001}, "jobs"),
    ):
        assert field in faults(caller.rest.post("/jobs/batch", json=body))
    many = faults(caller.rest.post("/jobs/batch", json={"jobs": [{}] * 1000, "atomic": True}))
    assert len(many) == 100
    headers = {"content-type": "application/json"}
    answer = caller.rest.post("/jobs/batch", content=b'{"jobs": [', headers=headers)
    assert answer.status_code == 400
    assert data(caller.rest.get("/jobs"))["total_count"] == before


def test_the_cluster_its_nodes_and_the_queue_tell_what_they_should(caller: Caller) -> None:
    totals = data(caller.rest.get("/cluster"))
    assert totals["total_nodes"] == totals["ready_nodes"] == 2
    (kind,) = totals["accelerators"]
    assert kind["type"] == "CPU"
    assert kind["total"] == totals["total_devices"]
    assert {"free_nodes", "free_devices", "jobs_by_status", "queue_depth"} <= set(totals)
    listed = data(caller.rest.get("/cluster/nodes", params={"status_filter": "READY"}))
    assert set(listed) == {"nodes", "next_page_token", "total_count"}
    first = data(caller.rest.get("/cluster/nodes", params={"page_size": 1}))
    assert len(first["nodes"]) == 1
    assert first["next_page_token"]
    place = f"/cluster/nodes/{first['nodes'][0]['node_id']}"

    def measured() -> Any:
        found = data(caller.rest.get(place))
        return found if all(one["telemetry"] for one in found["devices"]) else None

    node = until(measured, "its devices are measured")
    assert {"devices", "running_job_ids", "health", "cache"} <= set(node)
    job_id = held(caller)
    (queue,) = data(caller.rest.get("/queue", params={"queue_name": "default"}))["queues"]
    assert queue["depth"] >= 1
    assert queue["running"] >= 0
    row = next(row for row in queue["jobs"] if row["job_id"] == job_id)
    assert row["position"] >= 1
    assert "estimated_wait_seconds" in row
    assert data(caller.rest.get("/queue"))["queues"]


def test_an_unknown_status_of_nodes_is_named_with_the_known_ones(caller: Caller) -> None:
    answer = caller.rest.get("/cluster/nodes", params={"status_filter": "SLEEPY"})
    assert answer.status_code == 400
    assert "READY" in answer.json()["error"]["message"]


def test_a_drain_can_be_tried_out_and_changes_nothing_then(caller: Caller) -> None:
    node_id = data(caller.rest.get("/cluster/nodes"))["nodes"][0]["node_id"]
    path = f"/cluster/nodes/{node_id}"
    told = data(caller.rest.post(f"{path}/drain", json={"validate_only": True, "force": True}))
    assert told["node_id"] == node_id
    assert data(caller.rest.get(path))["status"] == "READY"
    for more in ({"deadline_seconds": -1}, {"why": "x"}):
        assert faults(caller.rest.post(f"{path}/drain", json=more)) == list(more)


def test_the_cache_is_told_by_node_with_totals(caller: Caller) -> None:
    told = data(caller.rest.get("/data/cache"))
    assert set(told) == {"nodes", "entries_count", "total_bytes"}
    assert [set(node) for node in told["nodes"]] == [
        {"node_id", "entries", "used_bytes", "budget_bytes"}
    ] * 2
    node_id = told["nodes"][0]["node_id"]
    (one,) = data(caller.rest.get("/data/cache", params={"node_id": node_id}))["nodes"]
    assert one["node_id"] == node_id
    missing = caller.rest.get("/data/cache", params={"node_id": "none"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NODE_NOT_FOUND")


def test_what_stands_beside_the_module_needs_no_credential(cluster: Cluster) -> None:
    with httpx.Client(base_url=f"http://{cluster.http}", timeout=30, trust_env=False) as anyone:
        until(lambda: anyone.get("/readyz").status_code == 200, "it is ready")
        for path in ("/healthz", "/livez", "/metrics", f"{MODULE}/docs"):
            assert anyone.get(path).status_code == 200, path
        described = anyone.get(f"{MODULE}/openapi.json").json()
        assert described["openapi"].startswith("3.1")
        assert anyone.get(f"{MODULE}/jobs").status_code == 401


def test_a_request_id_is_taken_where_valid_echoed_and_passed_on(caller: Caller) -> None:
    taken = caller.rest.get("/cluster", headers={"x-request-id": "req_mine-1"})
    assert taken.headers["x-request-id"] == taken.json()["meta"]["request_id"] == "req_mine-1"
    for bad in ("with space", "x" * 300):
        given = caller.rest.get("/cluster", headers={"x-request-id": bad}).headers["x-request-id"]
        assert given.startswith("req_")
