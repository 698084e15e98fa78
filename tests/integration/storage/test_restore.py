"""A real cluster goes back to a backup while its jobs run: what becomes of each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scaimind import MindError
from scaimind.v1 import job_pb2
from tests.support import jobs, processes
from tests.support.cluster import Cluster
from tests.support.waiting import until

Job = job_pb2.Job

WAITING = """
    import os, sys, time
    starts, end = sys.argv[1:]
    with open(starts, "a") as file:
        file.write(f"{os.getpid()}\\n")
    print("started", flush=True)
    while not os.path.exists(end):
        if os.path.exists(end + ".word"):
            os.remove(end + ".word")
            print("between", flush=True)
        time.sleep(0.02)
    print("ended")
    """


class Held:
    """A job that writes down each of its starts and ends when it is told to."""

    def __init__(self, cluster: Cluster, folder: Path, name: str) -> None:
        program = jobs.script(folder, "waiting.py", WAITING)
        self._cluster = cluster
        self._starts, self._end = folder / f"{name}.starts", folder / f"{name}.end"
        args = f"{self._starts} {self._end}"
        body = jobs.body(program, args=args, name=name, gpu_type="")
        self.job_id = cluster.client.submit(body).job_id

    def pids(self) -> list[int]:
        """Of its starts so far."""
        text = self._starts.read_text() if self._starts.exists() else ""
        return [int(line) for line in text.splitlines()]

    def runs(self, starts: int = 1) -> int:
        """Waits until it was started so many times; the pid of the last."""
        return until(lambda: len(self.pids()) == starts, "it starts") and self.pids()[-1]

    def says(self) -> None:
        """Lets it say a word, which the coordinator has when this returns."""
        self._end.with_name(self._end.name + ".word").touch()

        def heard() -> bool:
            return "between" in jobs.lines(self._cluster.client, self.job_id, follow=False)

        until(heard, "its word is in the log")

    def ends(self) -> job_pb2.Job:
        """Lets it end; its final record."""
        self._end.touch()
        return jobs.final(self._cluster.client, self.job_id)


def backup(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "coordinator.backup", *words], check=True)


def go_back(cluster: Cluster, folder: Path) -> None:
    """Loses the databases, restores them from a folder, and starts again. Agents keep their state."""
    data_dir = cluster.data_dir
    cluster.stop()
    for path in [*data_dir.glob("*.db"), *data_dir.glob("*.db-*")]:
        path.unlink()
    with pytest.raises(AssertionError, match="restore a backup"):
        cluster.start()
    backup("restore", str(folder), "--data-dir", str(data_dir))
    cluster.start()


def test_after_a_restore_each_job_is_where_it_was_or_starts_again_and_none_runs_twice(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path / "data", devices="sim:2xH100") as cluster:
        client = cluster.client
        done, running = Held(cluster, tmp_path, "done"), Held(cluster, tmp_path, "running")
        assert done.ends().status == Job.COMPLETED
        first = running.runs()
        busy = Held(cluster, tmp_path, "busy")
        busy.runs()
        waiting = Held(cluster, tmp_path, "waiting")
        jobs.reaches(client, running.job_id, "TRAINING")
        jobs.reaches(client, busy.job_id, "TRAINING")
        backup("make", str(tmp_path / "backup"), "--data-dir", str(cluster.data_dir))
        running.says()
        assert busy.ends().status == Job.COMPLETED
        old = waiting.runs()
        later = Held(cluster, tmp_path, "later")
        go_back(cluster, tmp_path / "backup")

        # Running then and now: the very same process goes on, and its log is whole.
        assert running.ends().attempts_count == 1
        assert running.pids() == [first]
        assert jobs.lines(client, running.job_id) == ["started", "between", "ended"]
        # Ended then: as it was. Accepted later: nobody knows it.
        assert client.get_job(done.job_id).status == Job.COMPLETED
        with pytest.raises(MindError, match="no job"):
            client.get_job(later.job_id)
        # Waiting then, granted since: the old grant is stopped before the new one starts.
        new = waiting.runs(2)
        assert not processes.is_alive(old)
        assert processes.is_alive(new)
        assert waiting.ends().status == Job.COMPLETED
        # Running then, ended since: its node knows nothing of it any more, so it is tried again.
        again = jobs.final(client, busy.job_id)
        assert (again.status, again.attempts_count) == (Job.COMPLETED, 2)
