"""From dicts to requests: what is taken, and how faults are named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from scaimind.client import InvalidArgument
from scaimind.client.body import to_message
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as pb


def faults(body: Any) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        to_message(body, pb.SubmitJobRequest())
    return dict(caught.value.details)


def test_a_body_becomes_the_message_that_it_means() -> None:
    body = {
        "name": "n",
        "training_config": {
            "training_type": "LORA",
            "hyperparameters": {"lr": 1e-05, "steps": 10, "on": False, "text": "x"},
            "priority": 7,
        },
        "data_config": {"sources": [{"path": "a", "sampling": {"fraction": 0.5}}]},
        "scheduling_config": {"start_after": "2026-01-02T03:04:05Z", "depends_on": ["job_0"]},
        "output_config": None,
    }
    request = to_message(body, pb.SubmitJobRequest())
    training = request.training_config
    assert training.training_type == job_pb2.TrainingConfig.LORA
    assert dict(training.hyperparameters) == {
        "lr": "1e-05",
        "steps": "10",
        "on": "false",
        "text": "x",
    }
    assert training.priority == 7
    assert request.data_config.sources[0].sampling.fraction == 0.5
    assert request.scheduling_config.start_after.seconds == 1767323045
    assert list(request.scheduling_config.depends_on) == ["job_0"]
    assert not request.HasField("output_config")


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        datetime(2026, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_times_that_yaml_has_parsed_are_taken(moment: datetime) -> None:
    body = {"scheduling_config": {"start_after": moment}}
    request = to_message(body, pb.SubmitJobRequest())
    assert request.scheduling_config.start_after.seconds == 1767323045


def test_every_unknown_field_is_named() -> None:
    body = {
        "nmae": "x",
        "trainingConfig": {},
        "resource_config": {"gpus": 1},
        "data_config": {"sources": [{"path": "a"}, {"pth": "b"}]},
    }
    assert faults(body) == {
        "nmae": "unknown field; did you mean name?",
        "trainingConfig": "unknown field; did you mean training_config?",
        "resource_config.gpus": "unknown field; did you mean gpu_count?",
        "data_config.sources[1].pth": "unknown field; did you mean path?",
    }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"resource_config": {"gpu_count": "many"}}, "resource_config.gpu_count"),
        ({"resource_config": {"gpu_count": 1.5}}, "resource_config.gpu_count"),
        ({"training_config": {"training_type": "NOPE"}}, "training_config.training_type"),
        ({"scheduling_config": {"start_after": "soon"}}, "scheduling_config.start_after"),
        ({"data_config": {"sources": {"path": "x"}}}, "data_config.sources"),
        ({"data_config": []}, "data_config"),
        ({"labels": {"a": [1]}}, "labels.a"),
        ({"labels": "a=b"}, "labels"),
        ({"name": 3}, "name"),
        ([], ""),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(body: Any, field: str) -> None:
    found = faults(body)
    assert list(found) == [field]
    assert found[field]


def test_every_wrong_value_says_what_would_fit() -> None:
    body = {
        "name": 3,
        "training_config": {"training_type": "lorra", "max_retries": True},
        "resource_config": {"gpu_count": 2**40, "gpu_memory_gb": "1e3", "disk_gb": "x"},
        "scheduling_config": {"preemptible": "yes", "retry_on_exit_codes": [3, "4"]},
    }
    found = faults(body)
    assert found.pop("training_config.training_type").endswith("; did you mean LORA?")
    assert found == {
        "name": "must be text; put it in quotes",
        "training_config.max_retries": "must be an integer",
        "resource_config.gpu_count": "must be between -2147483648 and 2147483647",
        "resource_config.gpu_memory_gb": "must be a number; in YAML write 1000.0",
        "resource_config.disk_gb": "must be a number",
        "scheduling_config.preemptible": "must be true or false",
        "scheduling_config.retry_on_exit_codes[1]": "must be an integer",
    }
