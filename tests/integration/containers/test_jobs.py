"""A job in a container from its submit over REST to its end: log, results, limits, what it cannot do."""

from __future__ import annotations

import sys
from pathlib import Path

from scaimind.v1 import job_pb2
from tests.integration.containers.conftest import body
from tests.support import jobs
from tests.support.cluster import ROOT, Cluster
from tests.support.engine import Engine
from tests.support.sse import SseReader
from tests.support.waiting import until

TRAIN = f"""
    #!{sys.executable}
    import os
    from pathlib import Path
    import scaimind

    print("data:", Path(os.environ["MIND_DATA_0_PATH"]).read_text().strip())
    print("mounted:", Path(os.environ["STORAGE_MOUNT_0_PATH"], "data").read_text().strip())
    with scaimind.init() as run:
        for step in run.track(5):
            run.log({{"loss": 2.0 - step / 5}}, step=step)
        with run.checkpoint(step=5) as folder:
            (Path(folder) / "weights.bin").write_bytes(b"w" * 1000)
        (Path(run.output_dir) / "model.bin").write_bytes(b"m")
    print("done")
    """
LOOK = """
    #!/bin/sh
    id
    grep -E "^(CapEff|CapBnd|NoNewPrivs):" /proc/self/status
    touch /file 2>&1
    touch /tmp/file && echo tmp is mine
    touch file && echo so is $PWD
    for file in /proc/[0-9]*; do echo $file; done | wc -l
    env
    """


def test_a_job_in_a_container_runs_from_a_submit_over_rest_to_completed_with_its_log_and_model(
    cluster: Cluster, shown: Path
) -> None:
    program = jobs.script(shown, "train", TRAIN)
    given = body(shown, program, environment={"PYTHONPATH": str(ROOT)})
    mount = {"source_uri": str(shown), "mount_path": "/mnt/shown", "read_only": True}
    given["data_config"]["storage_mounts"] = [mount]
    answer = cluster.rest.post("/jobs", json=given)
    assert answer.status_code == 201, answer.text
    job_id = answer.json()["data"]["job_id"]
    events = list(SseReader(cluster.rest, f"/jobs/{job_id}/logs", {"tail": -1}).events())
    assert events[-1].data["status"] == "COMPLETED", [event.data for event in events]
    assert [event.data["message"] for event in events[:-1]] == [
        "data: of the node",
        "mounted: of the node",
        "done",
    ]
    job = cluster.client.get_job(job_id)
    assert job.progress == 100
    (checkpoint,) = job.checkpoints
    assert (jobs.path_of(checkpoint.uri) / "weights.bin").stat().st_size == 1000
    assert (jobs.path_of(job.output_model_uri) / "model.bin").read_bytes() == b"m"


def test_a_container_is_nobody_can_do_nothing_and_writes_only_where_its_job_may(
    cluster: Cluster, shown: Path
) -> None:
    program = jobs.script(shown, "look", LOOK)
    job_id = cluster.client.submit(body(shown, program)).job_id
    jobs.final(cluster.client, job_id)
    said = jobs.lines(cluster.client, job_id)
    work = cluster.data_dir / "storage" / "jobs" / job_id / "work"
    assert said[0].startswith("uid=65534")
    facts = {line.split(":")[0]: line.split()[-1] for line in said[1:4]}
    assert facts == {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1"}
    assert "Read-only file system" in said[4]
    assert said[5:7] == ["tmp is mine", f"so is {work}"]
    assert int(said[7]) < 10, "it sees its own processes alone"
    names = {line.partition("=")[0] for line in said[8:]}
    assert {"MIND_JOB_ID", "RANK", "NVIDIA_VISIBLE_DEVICES"} <= names
    assert "NVIDIA_VISIBLE_DEVICES=void" in said
    assert not {name for name in names if "TOKEN" in name or "KEY" in name}


def test_memory_that_ran_out_is_told_apart_from_a_kill(cluster: Cluster, shown: Path) -> None:
    hungry = jobs.script(
        shown, "hungry", f"#!{sys.executable}\nprint('up')\nx = bytearray(400_000_000)\n"
    )
    killed = jobs.script(shown, "killed", "#!/bin/sh\nkill -9 $$\n")
    limit = {"memory_gb": 0.1}
    first = cluster.client.submit(body(shown, hungry, resources=limit)).job_id
    other = cluster.client.submit(body(shown, killed, resources=limit)).job_id
    job = jobs.final(cluster.client, first)
    assert job.error.category == job_pb2.JobError.HOST_OOM, job.error
    assert job.error.signal == 9
    error = jobs.final(cluster.client, other).error
    assert (error.category, error.signal) == (job_pb2.JobError.USER_CODE, 9)


def test_what_a_container_does_not_see_and_what_it_may_not_set_is_refused_by_name(
    cluster: Cluster, shown: Path
) -> None:
    cases = {
        "resource_config.image": body(shown, "/bin/true", image="localhost/no-such:1"),
        "data_config.sources[0].path": {
            **body(shown, "/bin/true"),
            "data_config": {"sources": [{"path": "/etc/shadow"}]},
        },
        "training_config.environment": body(
            shown, "/bin/true", environment={"NVIDIA_VISIBLE_DEVICES": "all"}
        ),
        "output_config.output_uri": {
            **body(shown, "/bin/true"),
            "output_config": {"output_uri": str(shown / "out")},
        },
        "training_config.framework.custom_script_path": body(shown, "/no/such/program"),
    }
    ids = {field: cluster.client.submit(given).job_id for field, given in cases.items()}
    for field, job_id in ids.items():
        job = jobs.final(cluster.client, job_id)
        assert job.status == job_pb2.Job.FAILED
        assert job.error.message.startswith(f"{field}: "), job.error


def test_an_agent_that_is_killed_finds_its_containers_again_and_no_line_is_lost(
    cluster: Cluster, shown: Path
) -> None:
    program = jobs.script(
        shown,
        "count",
        "#!/bin/sh\nn=0\nwhile [ ! -e end ]; do echo $n; n=$((n+1)); sleep 0.02; done\necho last\n",
    )
    job_id = cluster.client.submit(body(shown, program)).job_id
    jobs.reaches(cluster.client, job_id, "TRAINING")
    work = cluster.data_dir / "storage" / "jobs" / job_id / "work"
    cluster.returned("node_agent", cluster.kill("node_agent"))
    (work / "end").touch()
    job = jobs.final(cluster.client, job_id)
    assert (job.status, job.attempts_count) == (job_pb2.Job.COMPLETED, 1), job.error
    said = jobs.lines(cluster.client, job_id)
    assert said == [*map(str, range(len(said) - 1)), "last"]


def test_what_has_ended_leaves_no_container(cluster: Cluster, shown: Path, engine: Engine) -> None:
    job_id = cluster.client.submit(body(shown, "/bin/true")).job_id
    assert jobs.final(cluster.client, job_id).status == job_pb2.Job.COMPLETED
    until(lambda: not engine.containers(), lambda: f"none is left of {engine.containers()}")


def test_ranks_of_a_job_are_containers_that_share_memory(cluster: Cluster, shown: Path) -> None:
    share = (
        "#!/bin/sh\n"
        "touch /dev/shm/$RANK; until [ -e /dev/shm/0 ] && [ -e /dev/shm/1 ]; do sleep 0.02; done\n"
        "echo $RANK of $WORLD_SIZE at $MASTER_ADDR\n"
    )
    given = body(shown, jobs.script(shown, "share", share), gpu_count=2)
    job_id = cluster.client.submit(given).job_id
    assert jobs.final(cluster.client, job_id).status == job_pb2.Job.COMPLETED
    said = jobs.lines(cluster.client, job_id)
    assert sorted(said) == ["0 of 2 at 127.0.0.1", "1 of 2 at 127.0.0.1"]
