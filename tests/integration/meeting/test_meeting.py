"""Ranks on two nodes with different addresses find each other, and fail together, with real torch."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator.rpc.agents import PORTS_COUNT, PORTS_FIRST
from scaimind.v1 import job_pb2
from tests.support import jobs
from tests.support.parted import Parted
from tests.support.processes import of_folder, words_of
from tests.support.waiting import until

TORCH_S = 300.0
LISTEN = (
    "import socket, sys; s = socket.create_server(('', int(sys.argv[1])))\n"
    "print('up', flush=True); sys.stdin.read()"
)
TRAIN = """
    import os, sys, time
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    for step in range(3):
        model.zero_grad()
        model(torch.full((1, 4), float(rank))).sum().backward()
        dist.all_reduce(model.weight.grad)
        with torch.no_grad():
            model.weight -= 0.1 * model.weight.grad / world
    gathered = [None] * world
    dist.all_gather_object(gathered, (rank, os.environ["NODE_RANK"], os.environ["LOCAL_RANK"]))
    print("gathered", gathered, "weight", [round(w, 3) for w in model.weight[0].tolist()])
    dist.barrier()
    if sys.argv[1:] == ["fails"]:
        if rank == 3:
            os._exit(3)  # at once: its peers fail of it, and must not have ended before it has
        dist.all_reduce(torch.zeros(1))
        time.sleep(600)
    """


@pytest.fixture(scope="module")
def cluster() -> Iterator[Parted]:
    """Two nodes of two devices."""
    with (
        tempfile.TemporaryDirectory(prefix="meeting-") as folder,
        Parted(Path(folder), devices=2) as made,
    ):
        yield made


def submit(cluster: Parted, program: Path, args: str = "", **more: Any) -> str:
    """A job of two ranks on each of the two nodes."""
    over = {"node_count": 2}
    given = jobs.body(program, args=args, gpu_count=4, gpu_type="H100", resources=over, **more)
    given["training_config"]["framework"]["distributed"] = {"backend": "gloo"}
    given["training_config"]["environment"] = {
        "RES_OPTIONS": "timeout:1 attempts:1"
    }  # no names there
    return cluster.client.submit(given).job_id


def test_ranks_of_two_nodes_train_together(cluster: Parted) -> None:
    program = jobs.script(cluster.folder, "train.py", TRAIN)
    job_id = submit(cluster, program)
    job = jobs.final(cluster.client, job_id, within_s=TORCH_S)
    said = [one for one in jobs.lines(cluster.client, job_id) if one.startswith("gathered")]
    assert job.status == job_pb2.Job.COMPLETED, job.error
    ranks = [(rank, str(rank // 2), str(rank % 2)) for rank in range(4)]
    assert sorted(said) == [f"gathered {ranks} weight [0.55, 0.55, 0.55, 0.55]"] * 4


def test_the_rank_that_failed_first_is_named_and_the_others_are_stopped(cluster: Parted) -> None:
    program = jobs.script(cluster.folder, "train.py", TRAIN)
    job_id = submit(cluster, program, "fails")
    job = jobs.final(cluster.client, job_id, within_s=TORCH_S)
    assert job.status == job_pb2.Job.FAILED
    assert (job.error.first_failing_rank, job.error.exit_code) == (3, 3), job.error

    def ranks() -> list[str]:
        said = (" ".join(words_of(one)) for one in of_folder(cluster.folder))
        return [words for words in said if "train.py" in words]

    until(lambda: not ranks(), lambda: f"the others have ended: {ranks()}")


def test_a_port_that_is_taken_where_rank_0_is_costs_a_try(
    cluster: Parted,
) -> None:
    asleep = jobs.body("/bin/sleep", args="600", gpu_type="H100")
    blocker = cluster.client.submit(asleep).job_id
    program = jobs.script(
        cluster.folder,
        "tell.py",
        'import os; print(os.environ["MIND_ATTEMPT"], os.environ["RANK"])',
    )
    job_id = submit(cluster, program)
    port = PORTS_FIRST + zlib.crc32(f"{job_id}.1".encode()) % PORTS_COUNT
    with ExitStack() as stack:
        for machine in cluster.machines:
            stack.enter_context(listening(machine.network.prefix, port))
        cluster.client.cancel(blocker)
        job = jobs.final(cluster.client, job_id)
    assert (job.status, job.attempts_count) == (job_pb2.Job.COMPLETED, 2), job.error
    said = jobs.lines(cluster.client, job_id)
    assert {"2 0", "2 1", "2 2", "2 3"} <= set(said)
    assert "1 0" not in said, "rank 0 of the first try was not started"


@contextmanager
def listening(prefix: tuple[str, ...], port: int) -> Iterator[None]:
    """Holds a port on another machine."""
    words = [*prefix, sys.executable, "-c", LISTEN, str(port)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.read(1) == b"u"
        try:
            yield
        finally:
            holder.kill()
