"""What a job's image is stays what it was when the job ran first, wherever its name leads later."""

from __future__ import annotations

from pathlib import Path

from scaimind.v1 import job_pb2
from tests.integration.containers.conftest import body
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.engine import Engine, root_file_system
from tests.support.registry import Registry

TWICE = """
    #!/bin/sh
    read version </version; echo attempt $MIND_ATTEMPT has $version
    [ -e second ] && exit 0
    touch second
    until [ -e moved ]; do sleep 0.02; done
    exit 1
    """


def test_a_job_whose_tag_moves_between_its_attempts_runs_the_image_that_it_began_with(
    cluster: Cluster, shown: Path, engine: Engine, registry: Registry
) -> None:
    first = registry.put("moves", root_file_system(version="1\n"))
    program = jobs.script(shown, "twice", TWICE)
    given = body(shown, program, image=registry.name("moves"), training={"max_retries": 1})
    job_id = cluster.client.submit(given).job_id
    jobs.reaches(cluster.client, job_id, "TRAINING")
    assert cluster.client.get_job(job_id).image_digest == first
    second = registry.put("moves", root_file_system(version="2\n"))
    with engine.client() as client:
        client.pull(registry.name("moves").rpartition(":")[0], tag="moves")
    _goes_on(cluster, job_id)
    job = jobs.final(cluster.client, job_id)
    assert (job.status, job.image_digest) == (job_pb2.Job.COMPLETED, first), job.error
    assert jobs.lines(cluster.client, job_id) == ["attempt 1 has 1", "attempt 2 has 1"]

    other = cluster.client.submit(given).job_id
    jobs.reaches(cluster.client, other, "TRAINING")
    assert cluster.client.get_job(other).image_digest == second
    _goes_on(cluster, other)
    jobs.final(cluster.client, other)
    assert jobs.lines(cluster.client, other) == ["attempt 1 has 2", "attempt 2 has 2"]


def test_an_image_that_no_registry_has_is_taken_by_its_name(cluster: Cluster, shown: Path) -> None:
    job_id = cluster.client.submit(body(shown, "/bin/true")).job_id
    job = jobs.final(cluster.client, job_id)
    assert (job.status, job.image_digest) == (job_pb2.Job.COMPLETED, "")


def _goes_on(cluster: Cluster, job_id: str) -> None:
    (cluster.data_dir / "storage" / "jobs" / job_id / "work" / "moved").touch()
