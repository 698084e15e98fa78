"""Jobs for tests: scripts on disk, the bodies that submit them, and waiting for what they become."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from scaimind import Client
from scaimind.v1 import job_pb2
from tests.support.waiting import WITHIN_S, until

FINAL = frozenset(
    (job_pb2.Job.COMPLETED, job_pb2.Job.FAILED, job_pb2.Job.CANCELLED, job_pb2.Job.PREEMPTED)
)


def script(folder: Path, name: str, text: str) -> Path:
    """Writes a script, at once for a job that may be reading one there; executable where it begins with
    `#!`."""
    folder.mkdir(parents=True, exist_ok=True)
    path, draft = folder / name, folder / f".{name}.draft"
    draft.write_text(textwrap.dedent(text).lstrip("\n"))
    draft.chmod(0o755 if draft.read_text().startswith("#!") else 0o644)
    draft.rename(path)
    return path


def body(
    program: Path | str,
    *,
    args: str = "",
    name: str = "test",
    gpu_count: int = 1,
    gpu_type: str = "CPU",
    resources: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    scheduling: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A submit body that runs a program; the mappings go into the configs of these names."""
    return {
        "name": name,
        "training_config": {
            "training_type": "SFT",
            "base_model": {"model_id": "none"},
            "framework": {
                "type": "CUSTOM",
                "custom_script_path": str(program),
                "config": {"args": args},
            },
            **(training or {}),
        },
        "data_config": {"sources": [{"path": "/dev/null"}]},
        "resource_config": {"gpu_count": gpu_count, "gpu_type": gpu_type, **(resources or {})},
        "scheduling_config": {**(scheduling or {})},
    }


def final(client: Client, job_id: str, *, within_s: float = 120.0) -> job_pb2.Job:
    """The job once it is final."""
    return client.wait(job_id, timeout_s=within_s)


def reaches(client: Client, job_id: str, status: str, *, within_s: float = WITHIN_S) -> job_pb2.Job:
    """The job once it has this status. Fails at once where it has ended otherwise."""
    wanted = job_pb2.Job.Status.Value(status)

    def look() -> job_pb2.Job | None:
        job = client.get_job(job_id)
        if job.status != wanted and job.status in FINAL:
            name = job_pb2.Job.Status.Name(job.status)
            raise AssertionError(f"{job_id} is {name}, not {status}: {job.error.message}")
        return job if job.status == wanted else None

    return until(look, f"{job_id} is {status}", within_s=within_s)


def lines(client: Client, job_id: str, **options: Any) -> list[str]:
    """All log lines of a job, in order, up to what there is now or its end."""
    events = client.logs(job_id, tail=-1, **options)
    return [event.log.message for event in events if event.WhichOneof("event") == "log"]


def path_of(uri: str) -> Path:
    """The path of a `file://` URI, or of a path."""
    return Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri)
