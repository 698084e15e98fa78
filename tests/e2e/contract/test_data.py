"""Checks of data over REST: formats, places, and what nobody may reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.e2e.contract.conftest import Caller
from tests.e2e.contract.test_rest import data

FIELDS = {"path", "reachable", "parseable", "format", "num_samples", "size_bytes", "error"}
INNER = (
    "http://127.0.0.1/",
    "http://localhost/",
    "http://[::1]/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:10.0.0.1]/",
    "http://192.168.0.1:8080/a.jsonl",
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A good file of each format, with three samples."""
    texts = {
        "jsonl": '{"a": 1}\n{"a": 2}\n\n{"a": 3}\n',
        "csv": "a,b\n1,2\n3,4\n5,6\n",
        "text": "one\ntwo\n\nthree\n",
    }
    made = {name: tmp_path / f"data.{name[:5].replace('text', 'txt')}" for name in texts}
    for name, path in made.items():
        path.write_text(texts[name])
    made["parquet"] = tmp_path / "data.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2, 3]}), made["parquet"])
    return made


def checked(caller: Caller, *sources: dict[str, Any]) -> list[dict[str, Any]]:
    """What is told of each source."""
    told = data(caller.rest.post("/data/validate", json={"sources": sources}))
    results: list[dict[str, Any]] = told["results"]
    assert told["valid"] == all(not one["error"] for one in results)
    assert [one["path"] for one in results] == [source["path"] for source in sources]
    assert all(set(one) == FIELDS for one in results)
    return results


def test_every_format_is_reached_parsed_and_counted(caller: Caller, files: dict[str, Path]) -> None:
    paths = [str(path) for path in files.values()] + [path.as_uri() for path in files.values()]
    for one, path in zip(checked(caller, *({"path": path} for path in paths)), paths, strict=True):
        assert (one["reachable"], one["parseable"], one["error"]) == (True, True, None), path
        assert (one["format"], one["num_samples"]) in {(name, 3) for name in files}
        assert one["size_bytes"] > 0


def test_what_cannot_be_parsed_or_is_not_there_says_so(caller: Caller, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"a": 1}\nno\n')
    broken, missing, odd = checked(
        caller,
        {"path": str(bad)},
        {"path": str(tmp_path / "none.jsonl")},
        {"path": str(bad), "format": "xml"},
    )
    assert (broken["reachable"], broken["parseable"]) == (True, False)
    assert "2" in broken["error"]
    assert (missing["reachable"], missing["parseable"]) == (False, False)
    assert "jsonl" in odd["error"]


def test_no_inner_address_is_asked_however_it_is_written(caller: Caller) -> None:
    found = checked(caller, *({"path": path} for path in INNER))
    assert {one["reachable"] for one in found} == {False}
    assert {one["error"] for one in found} == {"its address is unknown or not allowed"}


def test_a_service_that_is_not_set_up_is_named(caller: Caller) -> None:
    for scheme in ("scaidrive", "scaiatlas", "ftp"):
        (one,) = checked(caller, {"path": f"{scheme}://acme/data.jsonl"})
        assert one["error"] == f"{scheme}:// is not set up here"
    for path in ("s3://bucket/data.jsonl", "gs://bucket/data.jsonl"):
        (one,) = checked(caller, {"path": path})
        assert one["error"] == "it is not below a folder that may be read here"
