"""The life of leases on one node: granted, run, stopped, ended, forgotten."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest
from tests.contract.runtimes.conftest import until_gone, until_holds
from tests.integration.node_agent.conftest import Agent, Script, lease, stop
from tests.integration.node_agent.coordinator import Coordinator


async def test_a_lease_runs_is_reported_and_is_forgotten(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await coordinator.desire(lease(script("echo hello; exit 0")))
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert [rank.exit_code for rank in ended.ranks] == [0]
    assert ended.ranks[0].HasField("exit_code")
    assert ended.ranks[0].HasField("started_at")
    assert ended.ranks[0].HasField("ended_at")
    assert not ended.HasField("error")
    assert agent.rank("lease-1").exists()
    await coordinator.desire()
    await coordinator.forgotten("lease-1")
    assert list((agent.data_dir / "leases").iterdir()) == []
    assert coordinator.lines("job_1", 0, agent_pb2.STDOUT) == ["hello"]


async def test_the_offer_and_the_token_come_with_every_call(
    coordinator: Coordinator, agent: Agent
) -> None:
    agent.flags = ("--devices", "sim:2xH100", "--labels", "zone=a", "--address", "10.0.0.7")
    await agent.start()
    request = coordinator.requests[0]
    assert request.node_id == "n1"
    assert request.offer.address == "10.0.0.7"
    assert dict(request.offer.labels) == {"zone": "a"}
    assert request.offer.simulated
    assert [device.type for device in request.offer.devices] == ["H100", "H100"]
    assert request.offer.cpu_count > 0
    assert request.offer.memory_bytes > 0
    assert request.offer.disk_bytes > 0
    credential = (agent.data_dir / "node.key").read_text()
    joined, *later = [metadata["authorization"] for metadata in coordinator.metadata]
    assert (joined, set(later)) == ("Bearer hush", {f"Bearer {credential}"})


async def test_a_lease_is_seen_running_before_it_ends(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await coordinator.desire(lease(script("sleep 600")))
    running = await coordinator.reported("lease-1", agent_pb2.RUNNING)
    assert running.ranks[0].state == agent_pb2.RUNNING
    assert not running.ranks[0].HasField("exit_code")


async def test_what_a_rank_sees_is_what_the_contract_says(
    coordinator: Coordinator, agent: Agent, tmp_path: Path
) -> None:
    program = tmp_path / "train.py"
    program.write_text(
        "import json, os, sys\n"
        "print(json.dumps({'env': dict(os.environ), 'argv': sys.argv[1:], 'cwd': os.getcwd(),\n"
        "    'python': sys.executable, 'config': json.load(open(os.environ['MIND_CONFIG']))}))\n"
    )
    job = SubmitJobRequest(name="test")
    job.training_config.environment["GREETING"] = "hi"
    job.training_config.environment["RANK"] = "99"
    job.training_config.hyperparameters["lr"] = "1e-3"
    job.resource_config.max_runtime_seconds = 3600
    job.data_config.sources.add(path="/data/a.jsonl")
    job.data_config.sources.add(path="file:///data/b%20c.jsonl")
    granted = lease(program, job=job, args="--name 'a b' --n 3", ranks=2)
    devices = None
    await agent.start()
    devices = [device.device_id for device in coordinator.requests[0].offer.devices[2:4]]
    granted.spec.device_ids.extend(devices)
    await coordinator.desire(granted)
    await coordinator.reported("lease-1", agent_pb2.ENDED)
    seen = [json.loads((agent.rank("lease-1", r) / "stdout").read_text()) for r in (0, 1)]
    assert seen[0]["argv"] == ["--name", "a b", "--n", "3"]
    assert seen[0]["python"] == sys.executable
    assert seen[0]["cwd"] == str(agent.data_dir / "storage/jobs/job_1/work")
    config = seen[0]["config"]
    assert config["training_config"]["hyperparameters"] == {"lr": "1e-3"}
    assert config["resource_config"]["max_runtime_seconds"] == 3600
    assert config["data_config"]["sources"][0] == {"path": "/data/a.jsonl"}
    env = seen[1]["env"]
    expected = {
        "MASTER_ADDR": "127.0.0.1",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "NODE_RANK": "0",
        "NNODES": "1",
        "CUDA_VISIBLE_DEVICES": "2,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "OMP_NUM_THREADS": "1",
        "GREETING": "hi",
        "MIND_JOB_ID": "job_1",
        "MIND_LINEAGE_ID": "job_1",
        "MIND_ATTEMPT": "1",
        "MIND_DATA_0_PATH": "/data/a.jsonl",
        "MIND_DATA_1_PATH": "/data/b c.jsonl",
        "MIND_CHECKPOINT_DIR": str(agent.data_dir / "storage/lineages/job_1/checkpoints"),
        "MIND_OUTPUT_DIR": str(agent.data_dir / "storage/jobs/job_1/model"),
        "MIND_EVENTS": str(agent.rank("lease-1", 1) / "events"),
    }
    assert {name: env.get(name) for name in expected} == expected
    assert env["MASTER_PORT"] == seen[0]["env"]["MASTER_PORT"]
    assert "MIND_JOIN_TOKEN" not in env
    assert "MIND_RESUME_FROM" not in env


async def test_a_checkpoint_to_go_on_from_is_told(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    granted = lease(script("echo from $MIND_RESUME_FROM"))
    granted.spec.resume_from.uri = "file:///checkpoints/step-7"
    await coordinator.desire(granted)
    await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert (agent.rank("lease-1") / "stdout").read_text() == "from /checkpoints/step-7\n"


async def test_a_model_is_reported_where_the_lease_ended_well(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    well = lease(script("touch $MIND_OUTPUT_DIR/model"))
    badly = lease(script("touch $MIND_OUTPUT_DIR/model; exit 1"), lease_id="lease-2")
    badly.spec.job_id = "job_2"
    empty = lease(script("true"), lease_id="lease-3")
    empty.spec.job_id = "job_3"
    await coordinator.desire(well, badly, empty)
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.output_model_uri == (agent.data_dir / "storage/jobs/job_1/model").as_uri()
    for other in ("lease-2", "lease-3"):
        assert (await coordinator.reported(other, agent_pb2.ENDED)).output_model_uri == ""


async def test_the_first_failing_rank_is_named_and_its_gang_is_stopped(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    program = script('[ "$RANK" = 2 ] || exec sleep 600; echo "$OOM" >&2; exit 7')
    out_of_memory = "torch.OutOfMemoryError: CUDA out of memory."
    grant = lease(program, ranks=4)
    grant.spec.device_ids.extend(f"sim-H100-{number}" for number in range(4))
    grant.spec.job.training_config.environment["OOM"] = f"at line 5\n{out_of_memory}"
    await coordinator.desire(grant)
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.category == job_pb2.JobError.GPU_OOM
    assert ended.error.first_failing_rank == 2
    assert ended.error.exit_code == 7
    assert ended.error.message == f"rank 2 exited with code 7: {out_of_memory}"
    assert list(ended.error.last_lines) == ["at line 5", out_of_memory]
    assert [rank.signal for rank in ended.ranks] == [15, 15, 0, 15]
    seen = ended.error.telemetry
    assert [device.device_id for device in seen.devices] == list(grant.spec.device_ids)
    assert seen.samples_count >= 1
    assert seen.host_memory_total_bytes >= seen.host_memory_used_bytes_max > 0


async def test_a_rank_ended_by_sigkill_says_what_that_may_mean(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await coordinator.desire(lease(script("kill -9 $$")))
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.signal == signal.SIGKILL
    assert "memory" in ended.error.message


async def test_a_stop_gives_the_grace_and_is_reported_on_the_way(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    granted = lease(
        script(
            "trap 'echo saving; until [ -e $PWD/go ]; do sleep 0.02; done; exit 0' TERM;"
            " echo up; sleep 600 & wait"
        )
    )
    await coordinator.desire(granted)
    await until_holds(agent.rank("lease-1") / "stdout", "up")
    await coordinator.desire(stop(granted))
    await coordinator.reported("lease-1", agent_pb2.STOPPING)
    await until_holds(agent.rank("lease-1") / "stdout", "saving")
    (agent.data_dir / "storage/jobs/job_1/work/go").write_text("")
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.ranks[0].exit_code == 0
    assert not ended.HasField("error")


async def test_a_rank_that_ignores_the_stop_is_killed_with_all_it_started(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    granted = lease(script("trap '' TERM; setsid sleep 600 & echo $! up; sleep 600"))
    await coordinator.desire(granted)
    printed = await until_holds(agent.rank("lease-1") / "stdout", "up")
    await coordinator.desire(stop(granted, grace_ms=100))
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.ranks[0].signal == signal.SIGKILL
    await until_gone(int(printed.split()[0]))


async def test_a_lease_starts_only_once_another_has_left_its_device(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    """A coordinator that lost its newest grants may grant the same device again."""
    await agent.start()
    device = coordinator.requests[0].offer.devices[0].device_id
    lingers = "trap '' TERM; echo up; until [ -e $PWD/go ]; do sleep 0.02; done"
    old = lease(script(lingers), lease_id="old")
    new = lease(script("echo new"), lease_id="new")
    old.spec.device_ids.append(device)
    new.spec.device_ids.append(device)
    await coordinator.desire(old)
    await until_holds(agent.rank("old") / "stdout", "up")
    await coordinator.desire(new, stop(old))
    await coordinator.reported("old", agent_pb2.STOPPING)
    await coordinator.next_call()
    assert not agent.rank("new").exists()
    (agent.data_dir / "storage/jobs/job_1/work/go").touch()
    await coordinator.reported("old", agent_pb2.ENDED)
    await coordinator.reported("new", agent_pb2.ENDED)
    assert (agent.rank("new") / "stdout").read_text() == "new\n"


async def test_a_lease_that_is_not_desired_any_more_is_stopped_and_forgotten(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await coordinator.desire(lease(script("echo up; exec sleep 600")))
    await coordinator.reported("lease-1", agent_pb2.RUNNING)
    await coordinator.desire()
    await coordinator.forgotten("lease-1")
    assert agent.processes() == []


async def test_an_ended_lease_stays_until_its_output_is_acknowledged(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    coordinator.acknowledges = False
    await agent.start()
    await coordinator.desire(lease(script("echo hello")))
    await coordinator.reported("lease-1", agent_pb2.ENDED)
    await coordinator.desire()
    for _ in range(3):
        await coordinator.next_call()
        assert "lease-1" in coordinator.leases
    coordinator.acknowledges = True
    await coordinator.stop()
    await coordinator.start()
    await coordinator.forgotten("lease-1")


async def test_a_higher_epoch_fences_the_lower_one(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    old = lease(script("echo up; exec sleep 600"))
    await coordinator.desire(old)
    await until_holds(agent.rank("lease-1") / "stdout", "up")
    before = agent.processes()
    new = lease(script("echo new; sleep 600"), epoch=2)
    await coordinator.desire(new)
    await coordinator.until(
        lambda: any(
            x.epoch == 2 and x.state == agent_pb2.RUNNING for x in coordinator.leases.values()
        )
    )
    assert not agent.rank("lease-1").exists()
    assert not {*before} & {*agent.processes()}


async def test_what_the_agent_never_heard_of_is_answered(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    lost, stopped = lease(script("true")), lease(script("true"), lease_id="lease-2")
    lost.ClearField("spec")
    stopped.action = agent_pb2.DesiredLease.STOP
    await coordinator.desire(lost, stopped)
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.category == job_pb2.JobError.NODE_LOST
    other = await coordinator.reported("lease-2", agent_pb2.ENDED)
    assert not other.HasField("error")
    assert list(other.ranks) == []


async def test_fifty_ranks_at_once(coordinator: Coordinator, agent: Agent, script: Script) -> None:
    await agent.start()
    await coordinator.desire(
        *(lease(script("echo $RANK"), lease_id=f"lease-{n}", ranks=5) for n in range(10))
    )
    ended = await asyncio.gather(
        *(coordinator.reported(f"lease-{n}", agent_pb2.ENDED) for n in range(10))
    )
    assert [[rank.exit_code for rank in lease.ranks] for lease in ended] == [[0] * 5] * 10


async def test_a_rank_that_outgrows_its_files_is_ended_and_said_to_and_the_node_goes_on(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    agent.prefix = ("sh", "-c", 'ulimit -f 2048; exec "$0" "$@"')  # in blocks of 512 bytes
    await agent.start()
    await coordinator.desire(lease(script("exec cat /dev/zero")))
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.ranks[0].signal == signal.SIGXFSZ
    assert "limit" in ended.error.message
    await coordinator.desire(lease(script("true"), lease_id="lease-2"))
    assert not (await coordinator.reported("lease-2", agent_pb2.ENDED)).HasField("error")


async def test_output_that_is_no_text_does_no_harm(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    garbage = "head -c 300000 /dev/urandom; head -c 300000 /dev/urandom >&2; exit 3"
    await coordinator.desire(lease(script(garbage)))
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.exit_code == 3
    await coordinator.desire()
    await coordinator.forgotten("lease-1")


async def test_scripts_run_in_the_virtual_environment_that_the_admin_names(
    coordinator: Coordinator, agent: Agent, script: Script, tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    make = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
    await asyncio.to_thread(subprocess.run, make, check=True, timeout=60)
    agent.flags = (*agent.flags, "--rank-python", str(venv / "bin/python"))
    await agent.start()
    program = tmp_path / "where.py"
    program.write_text("import os, sys; print(sys.prefix, os.environ['VIRTUAL_ENV'])")
    await coordinator.desire(lease(program))
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.ranks[0].exit_code == 0, ended.error
    assert (agent.rank("lease-1") / "stdout").read_text().split() == [str(venv)] * 2


@pytest.mark.parametrize(
    ("path", "mode", "said"),
    [
        ("missing.py", None, "No such file"),
        ("folder", None, "is a directory"),
        ("shell.sh", 0o644, "nor executable"),
        ("empty", 0o755, "not a program"),
        ("s3://bucket/train.py", None, "not below a folder"),
        ("file://elsewhere/train.py", None, "this machine"),
        ("", None, "needs a script"),
    ],
)
async def test_a_script_that_cannot_run_is_a_clear_fault_of_the_config(
    coordinator: Coordinator,
    agent: Agent,
    tmp_path: Path,
    *,
    path: str,
    mode: int | None,
    said: str,
) -> None:
    (tmp_path / "folder").mkdir()
    if mode is not None:
        (tmp_path / path).write_text("#!/bin/sh\n" if path.endswith(".sh") else "")
        (tmp_path / path).chmod(mode)
    await agent.start()
    program = path if "://" in path or not path else str(tmp_path / path)
    await coordinator.desire(lease(program))
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.category == job_pb2.JobError.CONFIG
    assert ended.error.message.startswith("training_config.framework.custom_script_path: ")
    assert said in ended.error.message
    await coordinator.desire()
    await coordinator.forgotten("lease-1")


async def test_arguments_with_open_quotes_are_a_fault_of_the_config(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await coordinator.desire(lease(script("true"), args="--name 'open"))
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.category == job_pb2.JobError.CONFIG
    assert 'config["args"]' in ended.error.message
