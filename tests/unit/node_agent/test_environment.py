"""What a rank sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from node_agent.command import Refused
from node_agent.environment import configs_json, folders, lease_environment
from node_agent.ranks import DetectedDevice
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

STORAGE = Path("/storage")
GPU = DetectedDevice("GPU-1a", 3, "H100", "NVIDIA H100", 80)
CPU = DetectedDevice("cpu-0", 0, "CPU", "Xeon", 8)
SIM = DetectedDevice("sim-5", 5, "H100", "H100", 80, simulated=True)


def spec(job: SubmitJobRequest | None = None, **more: object) -> agent_pb2.LeaseSpec:
    fields: dict[str, Any] = {"job_id": "job_1", "lineage_id": "job_0", "attempt": 2}
    fields |= {"world_size": 4, "local_world_size": 2, "node_count": 1, **more}
    return agent_pb2.LeaseSpec(job=job or SubmitJobRequest(), **fields)


def shared(
    given: agent_pb2.LeaseSpec,
    *devices: DetectedDevice,
    agent_environ: dict[str, str] | None = None,
) -> dict[str, str]:
    return lease_environment(
        given,
        folders(given, STORAGE),
        devices=devices,
        agent_environ=agent_environ or {},
        folder=Path("/leases/l"),
    )


@pytest.mark.parametrize(
    ("devices", "visible"),
    [
        ((GPU,), "GPU-1a"),
        ((GPU, GPU), "GPU-1a,GPU-1a"),
        ((CPU, CPU), ""),
        ((SIM,), "5"),
    ],
)
def test_devices_are_shown_by_uuid_or_index_and_cpus_hide_all_gpus(
    devices: tuple[DetectedDevice, ...], visible: str
) -> None:
    assert shared(spec(), *devices)["CUDA_VISIBLE_DEVICES"] == visible


def test_threads_are_as_many_as_cores_per_rank_unless_the_user_says_otherwise() -> None:
    assert shared(spec(), *[CPU] * 8)["OMP_NUM_THREADS"] == "4"
    assert shared(spec(), CPU)["OMP_NUM_THREADS"] == "1"
    job = SubmitJobRequest()
    job.training_config.environment["OMP_NUM_THREADS"] = "7"
    assert shared(spec(job), *[CPU] * 8)["OMP_NUM_THREADS"] == "7"


def test_the_agents_own_settings_and_secrets_stay_with_it() -> None:
    environ = {"MIND_JOIN_TOKEN": "hush", "AWS_SECRET": "hush", "PATH": "/bin", "HOME": "/h"}
    env = shared(spec(), agent_environ=environ)
    assert "hush" not in env.values()
    assert (env["PATH"], env["HOME"]) == ("/bin", "/h")


def test_a_bare_agent_still_gives_a_path() -> None:
    assert "/usr/bin" in shared(spec())["PATH"]


def test_names_that_the_agent_sets_win_over_the_users() -> None:
    job = SubmitJobRequest()
    job.training_config.environment.update({"MIND_JOB_ID": "forged", "WORLD_SIZE": "9", "A": "b"})
    env = shared(spec(job))
    assert (env["MIND_JOB_ID"], env["WORLD_SIZE"], env["A"]) == ("job_1", "4", "b")


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_a_name_that_no_variable_can_have_is_refused(name: str) -> None:
    job = SubmitJobRequest()
    job.training_config.environment[name] = "x"
    with pytest.raises(Refused, match="environment"):
        shared(spec(job))


def test_one_node_meets_on_itself_and_several_at_the_first() -> None:
    alone = shared(spec())
    assert alone["MASTER_ADDR"] == "127.0.0.1"
    assert int(alone["MASTER_PORT"]) > 0
    many = shared(spec(node_count=2, node_rank=1, master_address="10.0.0.1", master_port=29500))
    assert (many["MASTER_ADDR"], many["MASTER_PORT"]) == ("10.0.0.1", "29500")
    assert (many["NODE_RANK"], many["NNODES"]) == ("1", "2")


def test_a_retry_goes_on_from_the_leases_checkpoint_before_the_jobs() -> None:
    job = SubmitJobRequest()
    job.training_config.resume_from_checkpoint = "/old"
    assert shared(spec(job))["MIND_RESUME_FROM"] == "/old"
    newer = spec(job, resume_from=job_pb2.Checkpoint(uri="/newer"))
    assert shared(newer)["MIND_RESUME_FROM"] == "/newer"
    assert "MIND_RESUME_FROM" not in shared(spec())


def test_a_source_that_the_node_cannot_serve_is_named() -> None:
    job = SubmitJobRequest()
    job.data_config.sources.add(path="/fine")
    job.data_config.sources.add(path="scaidrive://acme/x")
    with pytest.raises(Refused, match=r"data_config\.sources\[1\]\.path: .*scaidrive"):
        shared(spec(job))


def test_folders_are_the_jobs_own_or_as_it_says() -> None:
    own = folders(spec(), STORAGE)
    assert own.checkpoints == STORAGE / "lineages/job_0/checkpoints"
    assert own.output == STORAGE / "jobs/job_1/model"
    job = SubmitJobRequest()
    job.output_config.output_uri = "file:///models/m"
    job.output_config.checkpoint_uri = "/checkpoints"
    given = folders(spec(job), STORAGE)
    assert (given.output, given.checkpoints) == (Path("/models/m"), Path("/checkpoints"))


@pytest.mark.parametrize("job_id", ["../../etc", "..", ".", "/", "a/b", "x" * 500])
def test_an_id_never_leaves_the_storage_folder(job_id: str) -> None:
    work = folders(spec(job_id=job_id), STORAGE).work
    assert work.parent.parent == STORAGE / "jobs"
    assert ".." not in work.parts
    assert len(work.parent.name) <= 255


def test_the_configs_are_json_with_numbers_as_numbers() -> None:
    job = SubmitJobRequest(name="n")
    job.training_config.hyperparameters["lr"] = "1e-3"
    job.training_config.priority = 0
    job.data_config.seed = 2**40
    source = job.data_config.sources.add(path="/a")
    source.sampling.max_samples = 5
    job.scheduling_config.checkpoint_grace_seconds = 30
    job.scheduling_config.start_after.seconds = 60
    configs = json.loads(configs_json(job))
    assert configs == {
        "training_config": {"hyperparameters": {"lr": "1e-3"}, "priority": 0},
        "data_config": {
            "seed": 2**40,
            "sources": [{"path": "/a", "sampling": {"max_samples": 5}}],
        },
        "resource_config": {},
        "output_config": {},
        "scheduling_config": {
            "checkpoint_grace_seconds": 30,
            "start_after": "1970-01-01T00:01:00Z",
        },
    }
