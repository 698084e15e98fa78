"""Recorded workloads of any source: what their files may look like, and what is said of what is wrong."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.traces import pack
from bench.traces.rows import AMPLE, GIB, NO_TYPE
from bench.traces.workload import Workload, read

JOBS = """\
job_id,submit_s,duration_s,gpus,cpus,mem_gb,gpu_type,user_or_vc,status
a,20,100,1,2.5,4,T4,me,Running
b,0,50,8,16,64,,you,
c,0,0,3,,,P100|T4|A10,,Failed
d,10,7.5,0.4,1,1,,me,
"""
NODES = "node,gpus,gpu_type,cpus,mem_gb\nn0,4,T4,32,128\nn1,4,T4,32,128\nn2,2,P100,8,60\n"
FIGURES = {
    "jobs",
    "mean_jct_s",
    "p50_jct_s",
    "p99_jct_s",
    "mean_wait_s",
    "p99_wait_s",
    "makespan_s",
    "allocation_ratio_pct",
    "preemptions",
    "lost_device_s",
    "eta_p90_coverage_pct",
    "wall_s",
    "decisions_per_s",
}


def _written(folder: Path, jobs: str = JOBS, nodes: str = NODES) -> tuple[Path, Path]:
    paths = folder / "jobs.csv", folder / "nodes.csv"
    for path, text in zip(paths, (jobs, nodes), strict=True):
        path.write_bytes(text.encode())
    return paths


def _read(folder: Path, jobs: str = JOBS, nodes: str = NODES) -> Workload:
    return read(*_written(folder, jobs, nodes))


def _reordered(text: str) -> str:
    """The same columns, from the last to the first."""
    return "".join(",".join(line.split(",")[::-1]) + "\n" for line in text.splitlines())


def _run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.traces", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_it_is_the_same_in_whatever_form_the_rows_come(tmp_path: Path) -> None:
    plain = _read(tmp_path)
    assert _read(tmp_path, _reordered(JOBS), _reordered(NODES)) == plain
    assert _read(tmp_path, JOBS.replace("\n", "\r\n"), "\ufeff" + NODES) == plain
    jobs, nodes = _written(tmp_path)
    for path in (jobs, nodes):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert read(jobs, nodes) == plain


def test_jobs_come_by_their_time_and_as_they_stand_where_it_is_equal(tmp_path: Path) -> None:
    found = _read(tmp_path).jobs
    assert [job.demand.device_count for job in found] == [8, 3, 1, 1]
    assert [job.submit_ms for job in found] == [0, 0, 10_000, 20_000]
    assert [job.duration_ms for job in found] == [50_000, 1, 7_500, 100_000]


def test_what_an_optional_column_does_not_say_keeps_nobody_out(tmp_path: Path) -> None:
    jobs = "gpus,duration_s,submit_s\n2,5,0\n1,5,-3\n"
    found = _read(tmp_path, jobs, "gpus\n2\n4\n")
    assert [*found.nodes] == ["line-2", "line-3"]
    assert found.device_count == 6
    assert {device.type for x in found.nodes.values() for device in x.devices} == {NO_TYPE}
    assert {job.user for job in found.jobs} == {"nobody"}
    assert [job.submit_ms for job in found.jobs] == [-3_000, 0]
    blank = _read(tmp_path, JOBS, "node,gpus,gpu_type,cpus,mem_gb\nn0,8,,,\n")
    assert blank.nodes["n0"].cpu_count == blank.nodes["n0"].memory_bytes == AMPLE


def test_rows_that_do_not_say_what_a_replay_needs_are_counted(tmp_path: Path) -> None:
    jobs = "submit_s,duration_s,gpus\n0,5,\n0,5,0\n,5,1\n0,,1\n0,5,0.5\n0,5,1.5\n"
    found = _read(tmp_path, jobs)
    assert (found.no_devices, found.no_submit, found.no_duration, found.rounded_up) == (2, 1, 1, 2)
    assert [job.demand.device_count for job in found.jobs] == [1, 2]


def test_parts_of_a_core_are_not_rounded(tmp_path: Path) -> None:
    workload = _read(tmp_path)
    job = workload.jobs[-1]
    assert (job.demand.cpu_count, workload.nodes["n2"].cpu_count) == (2_500, 8_000)
    assert job.demand.memory_bytes == 4 * GIB


def test_a_job_gets_a_type_that_it_accepts_and_any_where_there_is_none(tmp_path: Path) -> None:
    workload = _read(tmp_path)
    assert [job.demand.device_type for job in workload.jobs] == ["", "P100|T4", "", "T4"]
    unknown = _read(tmp_path, JOBS.replace("T4,me", "H100,me"))
    assert (unknown.jobs[-1].demand.device_type, unknown.no_such_type) == ("", 1)


@pytest.mark.parametrize(
    ("nodes", "gpus", "node_count"),
    [
        ("4,A\n4,A\n", 4, 1),
        ("4,A\n4,A\n", 8, 2),
        ("4,A\n4,A\n", 6, 0),
        ("4,A\n2,A\n2,A\n", 8, 0),  # there are not two of the largest
        ("4,A\n4,B\n4,A\n", 8, 2),
        ("8,A\n2,B\n2,B\n", 4, 1),
    ],
)
def test_a_gang_is_on_whole_nodes_where_there_are_so_many(
    tmp_path: Path, nodes: str, gpus: int, node_count: int
) -> None:
    jobs = f"submit_s,duration_s,gpus\n0,5,{gpus}\n"
    assert _read(tmp_path, jobs, "gpus,gpu_type\n" + nodes).jobs[0].demand.node_count == node_count


def test_a_gang_is_measured_by_the_nodes_of_its_type(tmp_path: Path) -> None:
    jobs = "submit_s,duration_s,gpus,gpu_type\n0,5,4,B\n"
    found = _read(tmp_path, jobs, "gpus,gpu_type\n8,A\n2,B\n2,B\n")
    assert found.jobs[0].demand.node_count == 2


@pytest.mark.parametrize(
    ("jobs", "nodes", "message"),
    [
        (JOBS.replace(",100,1", ",long,1"), NODES, r"jobs.csv, line 2, duration_s: 'long'"),
        (JOBS.replace(",50,8", ",50,nan"), NODES, "jobs.csv, line 3, gpus: nan"),
        (JOBS.replace(",50,8", ",-50,8"), NODES, "jobs.csv, line 3, duration_s: -50"),
        (JOBS.replace("c,0", "c,1e300"), NODES, "jobs.csv, line 4, submit_s: 1e300"),
        (JOBS.replace("2.5,4", "2.5,much"), NODES, "jobs.csv, line 2, mem_gb: 'much'"),
        (JOBS.replace("Running", "Running,"), NODES, "jobs.csv, line 2: more cells"),
        (JOBS.replace("duration_s", "seconds"), NODES, "jobs.csv, line 1, duration_s: no such"),
        ("", NODES, "jobs.csv, line 1, submit_s: the file is empty"),
        (JOBS, NODES.replace("n1", "n0"), "nodes.csv, line 3, node: n0 is there already"),
        (JOBS, NODES.replace("2,P100", "2.5,P100"), "nodes.csv, line 4, gpus: 2.5"),
        (JOBS, NODES.replace("2,P100", "2e8,P100"), "nodes.csv, line 4, gpus: 2e"),
        (JOBS, NODES.replace("8,60", "x,60"), "nodes.csv, line 4, cpus: 'x'"),
        (JOBS, "gpus\n0\n\n", "nodes.csv, gpus: no node has any"),
    ],
)
def test_what_is_wrong_is_said_with_its_file_line_and_field(
    tmp_path: Path, jobs: str, nodes: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _read(tmp_path, jobs, nodes)


@pytest.mark.parametrize(
    "content", [gzip.compress(JOBS.encode())[:-12], JOBS.encode("utf-16"), b"\x1f\x8bnothing"]
)
def test_a_file_that_is_broken_is_named(tmp_path: Path, content: bytes) -> None:
    jobs, nodes = _written(tmp_path)
    jobs.write_bytes(content)
    with pytest.raises(ValueError, match=r"jobs\.csv, after line"):
        read(jobs, nodes)


def test_the_first_so_many_nodes_are_taken_and_all_where_there_are_fewer(tmp_path: Path) -> None:
    paths = _written(tmp_path)
    assert [*read(*paths, node_count=2).nodes] == ["n0", "n1"]
    assert len(read(*paths, node_count=99).nodes) == 3


@pytest.mark.parametrize("policy", ["priority_fifo", "shortest", "shortest_preempting"])
def test_the_figures_stand_alone_on_the_output(tmp_path: Path, policy: str) -> None:
    too_large = JOBS + "e,5,10,64,,,,,\n"
    paths = _written(tmp_path, too_large)
    done = _run(*paths, "--policy", policy, "--nodes", "9", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found.keys() >= FIGURES
    assert (found["jobs"], found["nodes"]) == (4, 3)
    assert "1 rows were refused: they can never fit" in done.stderr
    assert "there are 3 nodes only" in done.stderr


@pytest.mark.parametrize("how", [(), ("--pack",)])
def test_an_error_is_one_line_and_no_figures(tmp_path: Path, how: tuple[str, ...]) -> None:
    paths = _written(tmp_path, JOBS.replace("d,10", "d,10,10"))
    done = _run(*paths, *how, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "cannot be read: jobs.csv, line 5: more cells than the header line has\n"
    )


def test_a_packing_takes_rows_that_say_little(tmp_path: Path) -> None:
    paths = _written(tmp_path, "gpus,gpu_type\n1,A\n0.5,\n2,A|B\n0,\n,A\n", "gpus\n4\n\n4\n")
    done = _run(*paths, "--pack", "--gpu-type", "--seeds", "2", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["allocation_at_100_pct"] > 80
    assert "types are not heeded" in done.stderr
    assert "1 rows were left out" in done.stderr


def test_a_packing_heeds_types_where_nodes_tell_them(tmp_path: Path) -> None:
    paths = _written(tmp_path, "gpus,gpu_type\n1,A\n", "gpus,gpu_type\n4,A\n4,B\n")
    for typed, given in ((True, 50.0), (False, 100.0)):
        jobs, rooms = pack.read(*paths, node_count=0, typed=typed)
        assert pack.figures(jobs, rooms, typed=typed, seeds=1)["allocation_at_100_pct"] == given


def test_a_packing_that_asks_for_nothing_is_refused(tmp_path: Path) -> None:
    paths = _written(tmp_path, "gpus\n0\n", "gpus\n4\n")
    with pytest.raises(ValueError, match=r"jobs.csv, gpus: no job asks for any"):
        pack.read(*paths, node_count=0, typed=False)
