"""Jobs that cannot run, or behave badly: each has a clear outcome, and loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from scaimind.v1 import job_pb2
from tests.support import jobs, processes
from tests.support.cluster import Cluster
from tests.support.waiting import until

SCRIPT = "training_config.framework.custom_script_path"


def outcome(cluster: Cluster, program: Path | str, **options: object) -> job_pb2.Job:
    """The final record of a job that runs the program."""
    job_id = cluster.client.submit(jobs.body(program, **options)).job_id  # type: ignore[arg-type]
    return jobs.final(cluster.client, job_id)


def test_a_script_that_does_not_exist_fails_the_job_and_names_it(cluster: Cluster) -> None:
    job = outcome(cluster, "/nowhere/train.py")
    assert job.status == job_pb2.Job.FAILED
    assert job.error.category == job_pb2.JobError.CONFIG
    assert SCRIPT in job.error.message
    assert "/nowhere/train.py" in job.error.message


def test_a_script_that_may_not_be_executed_and_is_no_python_says_so(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(tmp_path, "data.bin", "")
    program.write_bytes(b"\0\1\2")
    job = outcome(cluster, program)
    assert job.error.category == job_pb2.JobError.CONFIG
    assert "neither a Python script nor executable" in job.error.message


@pytest.mark.parametrize("content", [b"#!/no/such/interpreter\n", b"\x7fELFnot really"])
def test_an_executable_that_the_kernel_refuses_fails_the_job_as_misconfigured(
    cluster: Cluster, tmp_path: Path, content: bytes
) -> None:
    program = tmp_path / "broken"
    program.write_bytes(content)
    program.chmod(0o755)
    job = outcome(cluster, program)
    assert job.status == job_pb2.Job.FAILED
    assert job.error.category == job_pb2.JobError.CONFIG
    assert SCRIPT in job.error.message


def test_a_script_that_exits_at_once_tells_its_exit_code_and_keeps_its_last_words(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(tmp_path, "bye.sh", "#!/bin/sh\nprintf 'last words'; exit 17\n")
    job = outcome(cluster, program)
    assert job.status == job_pb2.Job.FAILED
    assert (job.error.exit_code, job.error.first_failing_rank) == (17, 0)
    assert job.error.category == job_pb2.JobError.USER_CODE
    assert jobs.lines(cluster.client, job.job_id) == ["last words"]


def test_a_python_error_is_in_the_log_line_by_line(cluster: Cluster, tmp_path: Path) -> None:
    program = jobs.script(tmp_path, "wrong.py", "1 / 0\n")
    job = outcome(cluster, program)
    assert job.error.exit_code == 1
    assert "ZeroDivisionError" in jobs.lines(cluster.client, job.job_id)[-1]


def test_a_script_killed_by_a_signal_tells_the_signal(cluster: Cluster, tmp_path: Path) -> None:
    program = jobs.script(tmp_path, "killed.sh", "#!/bin/sh\nkill -SEGV $$\n")
    job = outcome(cluster, program)
    assert job.status == job_pb2.Job.FAILED
    assert job.error.signal == 11


def test_megabytes_without_a_newline_arrive_in_pieces_and_whole(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(
        tmp_path, "long.py", "import sys\nsys.stdout.write('x' * 3_000_000 + 'end')\n"
    )
    job = outcome(cluster, program)
    assert job.status == job_pb2.Job.COMPLETED, job.error
    pieces = jobs.lines(cluster.client, job.job_id)
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 65_536 + 2
    assert "".join(piece.strip("…") for piece in pieces) == "x" * 3_000_000 + "end"


def test_invalid_utf8_and_control_characters_are_shown_safely(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(
        tmp_path,
        "binary.py",
        """
        import sys
        sys.stdout.buffer.write(b"caf\\xc3\\xa9 \\xff\\xfe\\n\\x1b[31mred\\x00\\nlast\\n")
        """,
    )
    job = outcome(cluster, program)
    assert job.status == job_pb2.Job.COMPLETED, job.error
    shown = jobs.lines(cluster.client, job.job_id)
    assert len(shown) == 3
    assert shown[0].startswith("café ")
    assert "\x1b" not in shown[1]
    assert "\x00" not in shown[1]
    assert shown[2] == "last"


def test_children_that_outlive_their_script_are_gone_when_the_job_is_completed(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(
        tmp_path,
        "parent.sh",
        """
        #!/bin/sh
        sleep 600 &
        setsid sh -c 'sleep 600' &
        echo $!
        exit 0
        """,
    )
    job = outcome(cluster, program)
    assert job.status == job_pb2.Job.COMPLETED, job.error
    jobs.lines(cluster.client, job.job_id)
    storage = cluster.data_dir / "storage" / "jobs" / job.job_id
    until(
        lambda: not processes.of_folder(storage),
        lambda: f"its children are gone: {processes.describe(processes.of_folder(storage))}",
    )


def test_a_job_that_no_node_could_ever_take_is_refused_at_once(cluster: Cluster) -> None:
    answer = cluster.rest.post("/jobs", json=jobs.body("/bin/true", gpu_count=10_000))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "NEVER_FITS"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b'{"name": 7}', 422),
        (b'{"nonsense": 1}', 422),
        (b'{"training_config": {"training_type": "MAGIC"}}', 422),
        (b"\xff\xfe", 400),
    ],
)
def test_a_body_that_does_not_fit_never_reaches_the_coordinator(
    cluster: Cluster, body: bytes, status: int
) -> None:
    headers = {"content-type": "application/json"}
    answer = cluster.rest.post("/jobs", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["status"] == "error"
    assert answer.json()["meta"]["request_id"]


def test_a_script_that_fills_its_disk_quota_fails_with_its_own_error_and_keeps_what_it_wrote(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = jobs.script(
        tmp_path,
        "full.py",
        """
        import os, resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for number in range(1_000_000):
            os.write(1, b"%07d\\n" % number)
        """,
    )
    job = outcome(cluster, program)
    assert job.status == job_pb2.Job.FAILED
    assert job.error.category == job_pb2.JobError.USER_CODE
    shown = jobs.lines(cluster.client, job.job_id)
    numbers = [line for line in shown if line.isdigit()]
    assert numbers == [f"{number:07d}" for number in range(100_000 // 8)]
    assert any("File too large" in line for line in shown)
