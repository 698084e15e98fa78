"""A training that stands still and is stopped for it: its record says what its devices measured before."""

from __future__ import annotations

from pathlib import Path

import pytest

from scaimind.v1 import job_pb2
from tests.support import jobs
from tests.support.cluster import Cluster


@pytest.mark.parametrize("policy", ["STOP", "RESTART"])
def test_the_record_of_a_hang_has_the_minute_before_it(tmp_path: Path, policy: str) -> None:
    # a node is judged once it was in sight for three times as long as it takes to be out of contact
    settings = {"MIND_UNREACHABLE_AFTER_S": "2", "MIND_HOLD_MS": "300"}
    program = jobs.script(tmp_path, "sleep.sh", "#!/bin/sh\nexec sleep 600\n")
    wishes = {"on_hang": policy, "hang_after_seconds": 1, "checkpoint_grace_seconds": 1}
    with Cluster(tmp_path / "data", devices="sim:2xH100", settings=settings) as cluster:
        given = jobs.body(program, gpu_type="H100", gpu_count=2, scheduling=wishes)
        job_id = cluster.client.submit(given).job_id
        job = jobs.final(cluster.client, job_id)
        assert job.status == job_pb2.Job.FAILED, job
        assert job.error.category == job_pb2.JobError.HANG
        seen = job.error.telemetry
        assert seen.samples_count >= 1
        assert sorted(device.device_id for device in seen.devices) == ["sim-H100-0", "sim-H100-1"]
        assert all(device.HasField("utilization_percent_mean") for device in seen.devices)
        record = cluster.rest.get(f"/jobs/{job_id}").json()["data"]
        assert record["error"]["telemetry"]["samples_count"] == seen.samples_count
