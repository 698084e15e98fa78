"""Where jobs may have their results: below the roots of the node, each tenant in its own part."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.command import Refused
from node_agent.uploads.places import check, is_allowed, restored_path
from scaimind.agent.v1.agent_service_pb2 import LeaseSpec
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

ROOTS = ("s3://open/all", "gs://bucket/{tenant}")


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("s3://open/all/a", True),
        ("s3://open/all/", True),
        ("s3://open/allow", False),
        ("s3://open/other", False),
        ("gs://open/all/a", False),
        ("gs://bucket/acme/a/b", True),
        ("gs://bucket/rival/a", False),
        ("gs://bucket/acme/../rival/a", False),
        ("gs://bucket/acme//a", False),
        ("gs://bucket/acme/a?versionId=1", False),
        ("gs://bucket/acme/*", False),
        ("s3://key@open/all/a", False),
        ("s3://open", False),
    ],
)
def test_a_uri_lies_below_a_root_of_the_tenant(uri: str, allowed: bool) -> None:
    assert is_allowed(uri, ROOTS, tenant_id="acme") is allowed


def test_a_tenant_of_an_odd_name_has_no_part_of_its_own() -> None:
    assert not is_allowed("gs://bucket/../a", ROOTS, tenant_id="..")
    assert is_allowed("s3://open/all/a", ROOTS, tenant_id="..")


def test_a_job_that_names_another_place_is_refused_with_the_field() -> None:
    job = SubmitJobRequest()
    job.output_config.checkpoint_uri = "s3://open/all/a"
    check(LeaseSpec(job=job, tenant_id="acme"), ROOTS)
    job.output_config.output_uri = "s3://closed/a"
    with pytest.raises(Refused, match=r"^output_config\.output_uri: .*upload-roots"):
        check(LeaseSpec(job=job, tenant_id="acme"), ROOTS)


def test_what_is_restored_lies_in_the_leases_folder_whatever_its_name() -> None:
    folder = Path("/leases/l")
    assert restored_path("s3://b/a/step-1/", folder) == folder / "restored" / "step-1"
    assert restored_path("s3://b/a/..", folder).parent == folder / "restored"
