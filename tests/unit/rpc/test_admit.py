"""What becomes of a submitted job at the border: every fault with its field, and the core's command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coordinator.core.commands import SubmitJob
from coordinator.core.records import OnUnreachable
from coordinator.rpc import bounds
from coordinator.rpc.admit import submit_command
from scaimind.service.reach.keys import image_key, key_of
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest
from tests.unit.rpc.requests import CALLER, a_submit, refusal_of

Change = Callable[[SubmitJobRequest], object]


def command(change: Change | None = None) -> SubmitJob:
    return submit_command(a_submit(change), caller=CALLER, job_id="job_1")


def env(name: str, value: str = "x") -> Change:
    return lambda request: request.training_config.environment.update({name: value})


def framework(kind: int, training: int) -> Change:
    def change(request: SubmitJobRequest) -> None:
        request.training_config.framework.type = kind  # type: ignore[assignment]
        request.training_config.training_type = training  # type: ignore[assignment]

    return change


def resources(**fields: Any) -> Change:
    return lambda request: request.resource_config.MergeFrom(job_pb2.ResourceConfig(**fields))


def mount(**fields: Any) -> Change:
    return lambda request: request.data_config.storage_mounts.add(**fields)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"source_uri": "s3://b/x"}, "read_only"),
        ({"source_uri": "/x", "mount_path": "x"}, "mount_path"),
        ({"source_uri": "/x", "mount_path": "/a/../b"}, "mount_path"),
        ({"source_uri": "/x", "mount_path": "/"}, "mount_path"),
        ({"source_uri": "https://u:p@h/x", "read_only": True}, "source_uri"),
    ],
)
def test_a_mount_is_read_only_where_it_is_fetched_and_whole_where_it_is_seen(
    fields: dict[str, Any], field: str
) -> None:
    refusal = refusal_of(lambda: command(mount(**fields)))
    assert [one for one, _ in refusal.violations] == [f"data_config.storage_mounts[0].{field}"]


@pytest.mark.parametrize("path", ["/train.py", "s3://b/train.py"])
def test_with_its_own_code_a_job_names_its_script_in_there(path: str) -> None:
    def change(request: SubmitJobRequest) -> None:
        request.training_config.framework.source_uri = "https://h/code.zip"
        request.training_config.framework.custom_script_path = path

    refusal = refusal_of(lambda: command(change))
    assert [one for one, _ in refusal.violations] == [
        "training_config.framework.custom_script_path"
    ]


def ranks(world_size: int, **fields: Any) -> Change:
    def change(request: SubmitJobRequest) -> None:
        request.training_config.framework.distributed.world_size = world_size
        resources(**fields)(request)

    return change


def at(name: str, **time: int) -> Change:
    def change(request: SubmitJobRequest) -> None:
        for part, value in time.items():
            setattr(getattr(request.scheduling_config, name), part, value)

    return change


def script(path: str) -> Change:
    return lambda request: setattr(request.training_config.framework, "custom_script_path", path)


def args(text: str) -> Change:
    return lambda request: request.training_config.framework.config.update(args=text)


FRAMEWORK = "training_config.framework"
FAULTS: dict[str, tuple[Change, str]] = {
    "no model": (
        lambda request: request.training_config.base_model.Clear(),
        "training_config.base_model.model_id",
    ),
    "blank model": (
        lambda request: setattr(request.training_config.base_model, "model_id", "  "),
        "training_config.base_model.model_id",
    ),
    "no sources": (lambda request: request.data_config.Clear(), "data_config.sources"),
    "no script": (script(" "), f"{FRAMEWORK}.custom_script_path"),
    "script with NUL": (script("a\0b"), f"{FRAMEWORK}.custom_script_path"),
    "arguments with an open quote": (args("--name 'x"), f'{FRAMEWORK}.config["args"]'),
    "arguments with NUL": (args("a\0b"), f'{FRAMEWORK}.config["args"]'),
    "megatron with adapters": (
        framework(job_pb2.Framework.MEGATRON, job_pb2.TrainingConfig.LORA),
        f"{FRAMEWORK}.type",
    ),
    "variable that is no name": (env("1A"), 'training_config.environment["1A"]'),
    "variable of the agent": (env("RANK"), 'training_config.environment["RANK"]'),
    "variable with our prefix": (env("MIND_X"), 'training_config.environment["MIND_X"]'),
    "value with NUL": (env("A", "a\0"), 'training_config.environment["A"]'),
    "no devices": (
        lambda request: request.resource_config.Clear(),
        "resource_config.gpu_count",
    ),
    "negative devices": (
        lambda request: setattr(request.resource_config, "gpu_count", -1),
        "resource_config.gpu_count",
    ),
    "share below a thousandth": (
        resources(gpu_count=1, gpu_fraction=0.0004),
        "resource_config.gpu_fraction",
    ),
    "share between thousandths": (
        resources(gpu_count=1, gpu_fraction=0.3333),
        "resource_config.gpu_fraction",
    ),
    "types with nothing between bars": (
        resources(gpu_type="A100||H100"),
        "resource_config.gpu_type",
    ),
    "share of two devices": (
        resources(gpu_fraction=0.5, gpu_count=2),
        "resource_config.gpu_fraction",
    ),
    "unequal shares": (resources(gpu_count=3, node_count=2), "resource_config.node_count"),
    "ranks that do not divide": (ranks(2, gpu_count=3), f"{FRAMEWORK}.distributed.world_size"),
    "ranks over nodes": (
        ranks(3, gpu_count=6, node_count=2),
        f"{FRAMEWORK}.distributed.world_size",
    ),
    "a password in a source": (
        lambda request: setattr(request.data_config.sources[0], "path", "https://a:pw@host/x"),
        "data_config.sources[0].path",
    ),
    "a user in an output": (
        lambda request: setattr(request.output_config, "output_uri", "s3://someone@bucket/x"),
        "output_config.output_uri",
    ),
    "before 1970": (at("start_after", seconds=-1), "scheduling_config.start_after"),
    "after 9999": (at("deadline", seconds=1 << 60), "scheduling_config.deadline"),
    "bad nanos": (at("start_after", seconds=1, nanos=-1), "scheduling_config.start_after"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_and_names_its_field(name: str) -> None:
    change, field = FAULTS[name]
    refusal = refusal_of(lambda: command(change))
    assert [violation[0] for violation in refusal.violations] == [field]
    assert field in refusal.message


@pytest.mark.parametrize("path", ["s3://bucket/a@b", "/data/a@b", "https://host/?mail=a@b"])
def test_an_at_sign_that_is_no_credential_is_taken(path: str) -> None:
    command(lambda request: setattr(request.data_config.sources[0], "path", path))


def test_every_fault_is_told_at_once() -> None:
    def change(request: SubmitJobRequest) -> None:
        request.training_config.base_model.Clear()
        request.data_config.Clear()
        env("RANK")(request)

    refusal = refusal_of(lambda: command(change))
    assert len(refusal.violations) == 3


def test_a_long_name_of_a_variable_is_cut_in_the_answer() -> None:
    refusal = refusal_of(lambda: command(env("=" * 250)))
    assert len(refusal.violations[0][0]) < 200


def test_a_job_larger_than_a_page_can_carry_is_refused() -> None:
    def change(request: SubmitJobRequest) -> None:
        for number in range(40):
            request.training_config.environment[f"V{number}"] = "x" * 16_000

    assert "KiB" in refusal_of(lambda: command(change)).message


def test_unset_fields_get_the_defaults_of_the_contract() -> None:
    made = command()
    assert (made.priority, made.queue_name, made.validate_only) == (5, "default", False)
    assert (made.demand.device_count, made.demand.device_type, made.demand.world_size) == (1, "", 0)
    policy = made.policy
    assert (policy.preemptible, policy.requeue_on_preemption, policy.max_retries) == (True, True, 0)
    assert (policy.grace_ms, policy.on_unreachable) == (120_000, OnUnreachable.KEEP)
    assert (policy.start_after_ms, policy.deadline_ms, policy.max_runtime_ms) == (0, 0, 0)


@pytest.mark.parametrize(
    ("given", "thousandths"), [(0.001, 1), (0.29, 290), (0.3, 300), (0.999, 999), (1, 1000)]
)
def test_a_share_of_a_device_is_counted_in_thousandths(given: float, thousandths: int) -> None:
    assert command(resources(gpu_count=1, gpu_fraction=given)).demand.thousandths == thousandths


def test_accepted_types_are_the_same_in_whatever_order_they_stand() -> None:
    demand = command(resources(gpu_type="H100|A100|H100")).demand
    assert demand.device_type == "A100|H100"
    assert demand.device_types == ("A100", "H100")


def test_what_was_set_reaches_the_core_in_its_units() -> None:
    def change(request: SubmitJobRequest) -> None:
        request.training_config.priority = 0
        request.training_config.max_retries = 2
        request.labels.update({"b": "2", "a": "1"})
        resources(gpu_count=4, gpu_type="H100", gpu_memory_gb=80, memory_gb=1.5, disk_gb=2)(request)
        request.resource_config.max_runtime_seconds = 60
        request.resource_config.node_selector["zone"] = "x"
        scheduling = request.scheduling_config
        scheduling.preemptible = False
        scheduling.requeue_on_preemption = False
        scheduling.checkpoint_grace_seconds = 0
        scheduling.on_unreachable = job_pb2.SchedulingConfig.REPLACE
        scheduling.retry_on_exit_codes.extend([9, 3])
        scheduling.retry_on.extend([job_pb2.JobError.STORAGE, job_pb2.JobError.NETWORK])
        scheduling.fail_on.append(job_pb2.JobError.GPU_OOM)
        scheduling.start_after.FromMilliseconds(1_500)
        scheduling.expected_duration_seconds = 7
        scheduling.queue_name = "night"

    made = command(change)
    demand, policy = made.demand, made.policy
    assert (made.priority, made.queue_name) == (0, "night")
    assert made.labels == (("a", "1"), ("b", "2"))
    assert (demand.device_type, demand.device_memory_bytes) == ("H100", 80_000_000_000)
    assert (demand.memory_bytes, demand.disk_bytes) == (1_500_000_000, 2_000_000_000)
    assert demand.node_selector == (("zone", "x"),)
    assert (policy.max_retries, policy.retry_on_exit_codes) == (2, (3, 9))
    assert (policy.retry_on, policy.fail_on) == (("NETWORK", "STORAGE"), ("GPU_OOM",))
    assert (policy.preemptible, policy.requeue_on_preemption) == (False, False)
    assert (policy.grace_ms, policy.on_unreachable) == (0, OnUnreachable.REPLACE)
    assert (policy.start_after_ms, policy.max_runtime_ms) == (1_500, 60_000)
    assert policy.expected_duration_ms == 7_000


def test_the_document_is_the_submit_without_what_belongs_to_the_call() -> None:
    request = a_submit()
    plain = bounds.see(request.SerializeToString()).document
    request.request_id, request.validate_only = "again", True
    again = bounds.see(request.SerializeToString()).document
    assert SubmitJobRequest.FromString(again) == a_submit()
    assert SubmitJobRequest.FromString(plain) == a_submit()


def test_what_nodes_may_hold_of_a_job_is_known_by_hashes_of_uris_without_their_queries() -> None:
    def change(request: SubmitJobRequest) -> None:
        request.resource_config.image = "docker.io/library/torch"
        request.data_config.sources.add(path="s3://b/x.jsonl")
        request.data_config.sources.add(path="b/y.jsonl", type="s3")
        request.data_config.sources.add(path="https://h/z?signature=1#sha256=0")
        request.data_config.sources.add(path="/local")

    uris = ("s3://b/x.jsonl", "s3://b/y.jsonl", "https://h/z")
    wanted = {image_key("torch:latest"), *map(key_of, uris)}
    assert set(command(change).wants) == wanted
    assert command().wants == ()


def test_an_image_is_known_by_its_repository_whatever_its_tag() -> None:
    def image(name: str) -> str:
        def change(request: SubmitJobRequest) -> None:
            request.resource_config.image = name

        return command(change).image

    assert image("") == ""
    assert len(image("torch")) == 16
    assert image("docker.io/library/torch:v1") == image("torch:v2") == image("torch")
    assert len({image("torch"), image("r.example:5000/torch"), image("jax")}) == 3
