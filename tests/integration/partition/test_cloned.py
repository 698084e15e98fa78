"""A machine is cloned, disk and name and credential: of the two the newer start is the node."""

from __future__ import annotations

import subprocess
from pathlib import Path

from scaimind.v1 import job_pb2
from tests.support import jobs
from tests.support.networks import Network
from tests.support.parted import Beating, Machine, Parted
from tests.support.several import START_S, Program
from tests.support.waiting import until

SUPERSEDED = 3
OVERLAP_S = 10.0  # for which a job may run twice, until the older one of the two has heard of it


def clone(machine: Machine, network: Network, folder: Path) -> Program:
    """The program of a machine with the same disk, in a network and with processes of its own."""
    data_dir = folder / "clone"
    subprocess.run(["cp", "-a", str(machine.data_dir), str(data_dir)], check=True)
    its_own = {
        str(machine.data_dir): str(data_dir),
        machine.network.there: network.there,
    }
    copy = Program(folder, "clone", *(its_own.get(word, word) for word in machine.agent.words))
    alone = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    copy.prefix = (*network.prefix, *alone)
    return copy


def test_the_older_one_of_two_machines_with_one_name_stops_what_it_runs_and_ends(
    apart: Parted, tmp_path: Path
) -> None:
    hit, other = (Beating(apart, tmp_path / name) for name in ("hit", "other"))
    cloned = apart.machine_of(hit.job_id)
    before, apart_from_it = hit.beats(1), other.beats(1)
    with Network() as network:
        copy = clone(cloned, network, apart.folder)
        copy.start()
        try:
            until(
                lambda: cloned.agent.process.poll() == SUPERSEDED,
                lambda: f"it ends\n{apart.story()}\n{copy.story()}",
                within_s=START_S,
            )
            until(lambda: not before.lives, lambda: f"its rank has ended\n{apart.story()}")
            after = hit.beats(2)
            assert hit.proofs()[0].last_s - after.first_s < OVERLAP_S
            assert other.beats(1).pid == apart_from_it.pid, "nobody else is harmed"
            assert "superseded" not in copy.story(), "it is the node, and stays it"
            hit.tell_end()
            job = jobs.final(apart.client, hit.job_id)
            assert (job.status, job.attempts_count) == (job_pb2.Job.COMPLETED, 2)
            assert [proof.attempt for proof in hit.proofs()] == [1, 2]
            other.end()
            apart.wait_until_all_are_ready()
        finally:
            copy.kill()
