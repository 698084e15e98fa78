"""Files of this machine: what is counted, what is refused, and what is told of either."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coordinator.data.check import check
from coordinator.data.terms import Finding, Question, Rules, Source
from scaimind.service.reach.stores import NOT_BELOW


def asked(root: Path, path: Path | str, *, tenant: str = "acme", **more: object) -> Finding:
    """The finding of a file; `root` is the only folder that may be read."""
    fields = {"type": "", "format": "", "columns": ()} | more.pop("source", {})  # type: ignore[operator]
    rules = Rules(roots=(str(root),), **more)  # type: ignore[arg-type]
    source = Source(path=str(path), **fields)
    return check(source, Question(rules=rules, tenant_id=tenant, sources=()))


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


GOOD = (
    ("a.jsonl", b'{"a": 1}\n\n{"a": 2}', "jsonl", 2),
    ("a.ndjson", b'\xef\xbb\xbf{"a": 1}\r\n', "jsonl", 1),
    ("a.csv", b'a,b\r\n1,"x, ""y""\nz"\r\n2,3\r\n', "csv", 2),
    ("a.txt", "größe\n\nzwei\n".encode(), "text", 2),
)


@pytest.mark.parametrize(("name", "content", "form", "count"), GOOD)
def test_a_good_file_is_counted(
    tmp_path: Path, name: str, content: bytes, form: str, count: int
) -> None:
    found = asked(tmp_path, written(tmp_path, name, content))
    assert found == Finding(
        reachable=True,
        parseable=True,
        format=form,
        num_samples=count,
        size_bytes=len(content),
    )


BAD = (
    ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
    ("a.jsonl", b"[" * 100_000, "line 1 is not JSON"),
    ("a.csv", b"a,b\n1,2,3\n", "line 2 has 3 fields, the header has 2"),
    ("a.csv", b'a,b\n1,"2\n', "line 2 is not CSV"),
    ("a.csv", b"", "there is no header"),
    ("a.txt", b"a\xff\n", "line 1 is not UTF-8"),
    ("a.txt", b"a\0\n", "line 1 is not text"),
    ("a.parquet", b"PAR1 no more", "it is not Parquet, or is damaged"),
    ("a.bin", b"x", "its name does not tell the format; say which it is"),
)


@pytest.mark.parametrize(("name", "content", "error"), BAD)
def test_a_bad_file_is_reachable_and_says_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, error: str
) -> None:
    found = asked(tmp_path, written(tmp_path, name, content))
    assert (found.reachable, found.parseable, found.error) == (True, False, error)
    assert found.num_samples is None


def test_parquet_is_counted_from_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"] * 1000}), path)
    assert asked(tmp_path, path).num_samples == 1000
    found = asked(tmp_path, path, source={"columns": ("text", "label")})
    assert found.error == "the schema has no column 'label'"
    assert not found.parseable


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    found = asked(tmp_path, written(tmp_path, "a", b"x"), source={"format": "avro"})
    assert found.error == "the format must be one of jsonl, csv, parquet, text"


def test_columns_must_be_there(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b'{"text": 1}\n{"txt": 1}\n')
    assert asked(tmp_path, path, source={"columns": ("text",)}).error == (
        "line 2 has no column 'text'"
    )


def test_a_folder_is_the_sum_of_its_files_of_one_format(tmp_path: Path) -> None:
    written(tmp_path, "d/a.jsonl", b"1\n2\n")
    written(tmp_path, "d/e/b.jsonl", b"3\n")
    written(tmp_path, "d/README.txt", b"hello\n")
    written(tmp_path, "d/.hidden.jsonl", b"{")
    (tmp_path / "d" / "out.jsonl").symlink_to("/etc/passwd")
    found = asked(tmp_path, tmp_path / "d", source={"format": "jsonl"})
    assert (found.num_samples, found.size_bytes, found.error) == (3, 6, None)
    written(tmp_path, "d/z.jsonl", b"{")
    assert asked(tmp_path, tmp_path / "d", source={"format": "jsonl"}).error == (
        "z.jsonl: line 1 is not JSON"
    )
    assert "more than 2 files" in str(asked(tmp_path, tmp_path / "d", files=2).error)


def test_more_than_may_be_read_is_good_as_far_as_it_was_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b'{"a": 1}\n' * 1000)
    found = asked(tmp_path, path, read_bytes=1000)
    assert (found.parseable, found.num_samples, found.size_bytes) == (True, None, 9000)


def test_what_is_not_below_a_root_looks_the_same_whether_it_is_there_or_not(
    tmp_path: Path,
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    written(tmp_path, "secret.txt", b"x")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    written(tmp_path, "data-too/a.txt", b"x")
    for path in (
        tmp_path / "secret.txt",
        tmp_path / "missing.txt",
        tmp_path / "data-too" / "a.txt",
        root / ".." / "secret.txt",
        root / "link.txt",
        f"file://{tmp_path}/secret.txt",
        f"file://{root}/%2e%2e/secret.txt",
        "/proc/self/environ",
        "/etc/passwd",
    ):
        found = asked(root, path)
        assert found.error == NOT_BELOW
        assert not found.reachable
        assert found.size_bytes is None


def test_a_closed_folder_stays_shut_and_the_deepest_rule_decides(tmp_path: Path) -> None:
    written(tmp_path, "mind/admin.txt", b"x")
    written(tmp_path, "mind/storage/a.txt", b"x")
    rules = Rules(roots=("/", f"{tmp_path}/mind/storage"), closed=(f"{tmp_path}/mind",))
    for name, allowed in (("mind/admin.txt", False), ("mind/storage/a.txt", True)):
        source = Source(path=f"{tmp_path}/{name}")
        found = check(source, Question(rules=rules, tenant_id="acme", sources=()))
        assert found.reachable is allowed
    source = Source(path="/proc/self/environ", format="text")
    assert not check(source, Question(rules=rules, tenant_id="acme", sources=())).reachable


def test_a_root_that_is_shared_out_gives_each_tenant_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, "acme/a.txt", b"x\n")
    shared = tmp_path / "{tenant}"
    assert asked(shared, path).reachable
    assert asked(shared, path, tenant="rival").error == NOT_BELOW
    assert asked(shared, path, tenant="..").error == NOT_BELOW


def test_what_is_no_file_and_what_is_missing_say_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert asked(tmp_path, tmp_path / "pipe.txt").error == "it is not a file"
    assert asked(tmp_path, tmp_path / "none.txt").error == "there is no such file"
    assert asked(tmp_path, "a.txt").error == "a path of this machine must be absolute"
    assert asked(tmp_path, "hdfs://a/b").error == "hdfs:// is not set up here"
    found = asked(tmp_path, "s3://bucket/a.jsonl", source={"type": "gs"})
    assert found.error == "its type is not that of its path"
