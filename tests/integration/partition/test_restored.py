"""A coordinator that is put back as a backup has it knows less than its agents."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from scaimind.client.errors import Unavailable
from scaimind.v1 import job_pb2
from tests.support.parted import Beating, Parted
from tests.support.several import START_S
from tests.support.waiting import until

Job = job_pb2.Job


def backup(verb: str, parted: Parted) -> None:
    words = [verb, str(parted.folder / "backup"), "--data-dir", str(_data_dir(parted))]
    subprocess.run([sys.executable, "-m", "coordinator.backup", *words], check=True)


def _data_dir(parted: Parted) -> Path:
    return parted.folder / "coordinator"


def go_back(parted: Parted) -> None:
    """The coordinator dies, its state is lost, and the backup is restored."""
    parted.coordinator.kill()
    for path in _data_dir(parted).glob("*.db*"):
        path.unlink()
    backup("restore", parted)
    parted.coordinator.start()


def alarms(parted: Parted) -> list[str]:
    return [alarm.code for alarm in parted.client.cluster().alarms]


def status(job: Beating) -> job_pb2.Job.Status.ValueType | None:
    try:
        return job.record.status
    except Unavailable:  # it takes its time to come back where much else runs
        return None


def test_nothing_is_placed_before_every_node_was_heard_and_no_job_runs_twice(
    apart: Parted, tmp_path: Path
) -> None:
    parted = apart
    first, second = (Beating(parted, tmp_path / name) for name in ("first", "second"))
    waits = Beating(parted, tmp_path / "waits", starts=False)
    backup("make", parted)
    second.end()
    there = waits.beats(1)  # where the second one was: the backup knows nothing of it
    slow = parted.machine_of(waits.job_id)
    slow.agent.send(signal.SIGSTOP)
    go_back(parted)
    first.tell_end()
    until(
        lambda: status(first) == Job.COMPLETED,
        lambda: f"its node was heard\n{parted.story()}",
        within_s=START_S,
    )
    # Devices of its node are free, and the one that waits is first in line.
    assert status(waits) == Job.QUEUED
    assert alarms(parted) == ["NODES_AWAITED"]
    slow.agent.send(signal.SIGCONT)
    until(lambda: len(waits.proofs()) > 1, lambda: f"it runs again\n{parted.story()}")
    assert not there.lives
    before, after = waits.proofs()
    assert before.last_s < after.first_s
    assert (before.pid, before.attempt, after.attempt) == (there.pid, 1, 1)
    waits.tell_end()
    for one in (waits, second):  # nobody knows that the second one had ended: it ran once more
        until(lambda one=one: status(one) == Job.COMPLETED, parted.story)  # type: ignore[misc]
    until(lambda: not alarms(parted), lambda: f"all is well\n{parted.story()}")
