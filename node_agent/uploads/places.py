"""Which URIs are of a store of objects, and which of these a job may use.

The agent speaks to a store with the node's own identity, which sees more than a tenant may: only what lies
below one of the node's upload roots is touched.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from node_agent.command import refuse
from node_agent.files import file_name
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

SCHEMES = ("s3", "gs")
RESTORED = "restored"  # in a lease's folder: what it goes on from
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_TENANT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_NOT_BELOW = "this node may not use it (--upload-roots of its agent)"


def is_remote(uri: str) -> bool:
    """Whether a URI is of a store of objects."""
    return uri.partition("://")[0] in SCHEMES and "://" in uri


def resumed_from(spec: agent_pb2.LeaseSpec) -> str:
    """Path or URI of what the lease goes on from; "" starts anew."""
    return spec.resume_from.uri or spec.job.training_config.resume_from_checkpoint


def restored_path(uri: str, folder: Path) -> Path:
    """Where what a remote URI names is brought to, in the folder of its lease."""
    return folder / RESTORED / file_name(posixpath.basename(uri.rstrip("/")))


def checkpoints_uri(spec: agent_pb2.LeaseSpec) -> str:
    """Below which prefix the job's checkpoints are uploaded; "" where they are not."""
    given = spec.job.output_config.checkpoint_uri
    return f"{given.rstrip('/')}/{spec.job_id}" if is_remote(given) else ""


def output_uri(spec: agent_pb2.LeaseSpec) -> str:
    """Where the model is uploaded to; "" where it is not."""
    given = spec.job.output_config.output_uri
    return given.rstrip("/") if is_remote(given) else ""


def check(spec: agent_pb2.LeaseSpec, roots: Sequence[str]) -> None:
    """Refused where the job names a place that it may not use here."""
    output = spec.job.output_config
    for field, uri in (
        ("output_config.checkpoint_uri", output.checkpoint_uri),
        ("output_config.output_uri", output.output_uri),
        ("training_config.resume_from_checkpoint", resumed_from(spec)),
    ):
        if is_remote(uri) and not is_allowed(uri, roots, tenant_id=spec.tenant_id):
            raise refuse(field, _NOT_BELOW)


def is_allowed(uri: str, roots: Sequence[str], *, tenant_id: str) -> bool:
    """Whether a remote URI lies below one of the roots; `{tenant}` in these is the tenant."""
    _, _, path = uri.partition("://")
    bucket, _, key = path.rstrip("/").partition("/")
    parts = key.split("/")
    odd = any(part in ("", ".", "..") for part in parts) or not key.isprintable()
    if not _BUCKET.fullmatch(bucket) or odd or any(letter in key for letter in "?#*[]"):
        return False
    plain = _TENANT.fullmatch(tenant_id) is not None
    mine = (r.replace("{tenant}", tenant_id) for r in roots if plain or "{tenant}" not in r)
    return any(f"{uri.rstrip('/')}/".startswith(f"{root.rstrip('/')}/") for root in mine)
