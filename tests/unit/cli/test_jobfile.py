"""Job files: what is read, what is settled, how faults are told."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import pytest

from scaimind.cli import jobfile
from scaimind.cli.exits import Fault


def test_yaml_and_json_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: x\nlabels: {a: b}\n")
    (tmp_path / "b.json").write_text('{"name": "x", "labels": {"a": "b"}}')
    expected = {"name": "x", "labels": {"a": "b"}}
    assert jobfile.read(str(tmp_path / "a.yaml"), []) == expected
    assert jobfile.read(str(tmp_path / "b.json"), []) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "job.yaml:1:6: "),
        (b"name: x\n\tlabels: {}\n", "job.yaml:2:1: "),
        (b"name: x\nlabels: {a: 1}\nname: y\n", "job.yaml:3: name is given twice"),
        (b"name: x\n---\n- 3\n", "job.yaml:3: a job file holds an object"),
        (b"- a\n- b\n", "holds an object"),
        (b"", "holds an object"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: !!python/object:os.system {}", "could not determine a constructor"),
        (b"a: 2026-99-99", "not YAML"),
    ],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "job.yaml").write_bytes(content)
    with pytest.raises(Fault, match=message):
        jobfile.read(str(tmp_path / "job.yaml"), [])


def test_a_file_may_hold_several_jobs(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n---\nname: b\n---\n")
    (tmp_path / "c.yaml").write_text("# the last one\nname: c\n")
    files = [str(tmp_path / "a.yaml"), str(tmp_path / "c.yaml")]
    found = jobfile.read_all(files, ["priority=3"])
    assert [each.body for each in found] == [{"name": n, "priority": 3} for n in "abc"]
    assert [each.line for each in found] == [1, 3, 2]
    with pytest.raises(Fault, match="holds 2 jobs"):
        jobfile.read(files[0], [])


def test_every_field_has_its_line(tmp_path: Path) -> None:
    text = """
name: x
data_config:
  sources:
    - path: a
    - {path: b,
       frmat: c}
labels: {"a.b": 1}
"""
    [found] = jobfile.parse(text, "job.yaml")
    jobfile.assign(found.body, "resource_config.gpu_count=2")
    found.lines[("resource_config", "gpu_count")] = 0
    places = {
        "name": "job.yaml:2",
        "data_config": "job.yaml:3",
        "data_config.sources[0].path": "job.yaml:5",
        "data_config.sources[1]": "job.yaml:6",
        "data_config.sources[1].frmat": "job.yaml:7",
        "data_config.sources[1].columns[3]": "job.yaml:6",
        'labels["a.b"]': "job.yaml:8",
        "resource_config.gpu_count": "--set",
        "training_config": "job.yaml:2",
    }
    assert {field: found.place(field) for field in places} == places


def test_anchors_that_multiply_cost_little() -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    [found] = jobfile.parse("a0: &a0 [x]\n" + "\n".join(levels), "job.yaml")
    assert len(found.body) == 30


def test_a_file_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobfile, "MAX_BYTES", 10)
    (tmp_path / "job.yaml").write_text("name: 123456789")
    with pytest.raises(Fault, match="larger than"):
        jobfile.read(str(tmp_path / "job.yaml"), [])


def test_a_folder_is_no_job_file(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="Is a directory"):
        jobfile.read(str(tmp_path), [])


def test_fields_are_set_by_path() -> None:
    body: dict[str, Any] = {"resource_config": {"gpu_count": 1}}
    jobfile.assign(body, "resource_config.gpu_count=4")
    jobfile.assign(body, "training_config.framework.config.args=--lr=0.1 -v")
    jobfile.assign(body, "labels.on=true")
    assert body == {
        "resource_config": {"gpu_count": 4},
        "training_config": {"framework": {"config": {"args": "--lr=0.1 -v"}}},
        "labels": {"on": True},
    }


@pytest.mark.parametrize("assignment", ["gpu_count", "=3", "name.inner=1"])
def test_a_bad_assignment_is_refused(assignment: str) -> None:
    with pytest.raises(Fault, match="--set"):
        jobfile.assign({"name": "x"}, assignment)


def settled(script: Any, *paths: Any, folder: Path) -> list[Any]:
    body: dict[str, Any] = {
        "training_config": {"framework": {"custom_script_path": script}},
        "data_config": {"sources": [{"path": path} for path in paths]},
    }
    jobfile.settle_paths(body, folder)
    sources = [source["path"] for source in body["data_config"]["sources"]]
    return [body["training_config"]["framework"]["custom_script_path"], *sources]


def test_what_lies_beside_the_job_file_is_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / "data").mkdir()
    assert settled("train.py", "data", "other", folder=tmp_path) == [
        str(tmp_path / "train.py"),
        str(tmp_path / "data"),
        "other",
    ]


def test_uris_and_values_of_other_kinds_stay_as_they_are(tmp_path: Path) -> None:
    values = ["s3://bucket/train.py", "hf://x", 3, None, "a\0b", "", ["x"]]
    assert settled(values[0], *values[1:], folder=tmp_path) == values


def test_placeholders_stand_for_the_folder_and_for_pythons_source(tmp_path: Path) -> None:
    found = settled("${JOB_DIR}/train.py", "${PYTHON_STDLIB}", folder=tmp_path)
    assert found == [f"{tmp_path}/train.py", sysconfig.get_path("stdlib")]


@pytest.mark.parametrize("body", [{}, {"training_config": 3}, {"data_config": {"sources": [1]}}])
def test_a_body_of_another_shape_is_left_to_the_schema(body: dict[str, Any]) -> None:
    jobfile.settle_paths(body, Path("/"))


def test_mounts_and_code_beside_the_job_file_are_made_absolute_and_a_script_in_there_is_not(
    tmp_path: Path,
) -> None:
    for name in ("code.zip", "words", "train.py"):
        (tmp_path / name).touch()
    body: dict[str, Any] = {
        "training_config": {
            "framework": {"custom_script_path": "train.py", "source_uri": "code.zip"}
        },
        "data_config": {"storage_mounts": [{"source_uri": "words"}, {"source_uri": "s3://b/x"}]},
    }
    jobfile.settle_paths(body, tmp_path)
    framework = {"custom_script_path": "train.py", "source_uri": str(tmp_path / "code.zip")}
    assert body["training_config"]["framework"] == framework
    mounts = body["data_config"]["storage_mounts"]
    assert [one["source_uri"] for one in mounts] == [str(tmp_path / "words"), "s3://b/x"]


def test_a_file_of_something_else_than_jobs_is_told_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "changes.yaml").write_text("- a")
    with pytest.raises(Fault, match=r"changes\.yaml:1: a file of changes holds"):
        jobfile.read(str(tmp_path / "changes.yaml"), [], shape="a file of changes holds …")
