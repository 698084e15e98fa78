"""Schemes of others: by base URL, by entry point, and packages that are not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coordinator.data.check import check
from coordinator.data.terms import Finding, Question, Rules, Source, Unreachable
from scaimind.service.reach.resolvers import Location, resolve

ORIGINS = {"scaidrive": "http://drive.internal/v1/files/"}


def test_a_base_url_is_joined_with_the_path_and_the_callers_token() -> None:
    there = resolve(
        "scaidrive://acme/a b.jsonl", "scaidrive", origins=ORIGINS, tokens={"scaidrive": "t"}
    )
    assert there.url == "http://drive.internal/v1/files/acme/a%20b.jsonl"
    assert there.headers == {"Authorization": "Bearer t"}
    assert there.trusted
    assert "Bearer" not in repr(there)


@pytest.mark.parametrize("path", ["../admin", "acme/../../x", "", "/x", "a//b", "./a", ".."])
def test_a_path_cannot_leave_its_base(path: str) -> None:
    with pytest.raises(Unreachable, match="no such file"):
        resolve(f"scaidrive://{path}", "scaidrive", origins=ORIGINS, tokens={"scaidrive": "t"})


def test_a_query_in_a_path_is_a_part_of_the_name() -> None:
    there = resolve(
        "scaidrive://acme/a?b#c", "scaidrive", origins=ORIGINS, tokens={"scaidrive": "t"}
    )
    assert there.url.endswith("/acme/a%3Fb%23c")


def test_an_entry_point_resolves_its_scheme_with_its_token_and_is_guarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus_resolver.py").write_text(
        "from scaimind.service.reach.resolvers import Location\n"
        "def resolve(uri, token):\n"
        "    if uri.endswith('broken'):\n"
        "        raise RuntimeError('at /srv/secret')\n"
        "    return Location('http://127.0.0.1:9/x', {'Authorization': token})\n"
    )
    info = tmp_path / "corpus_resolver-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corpus-resolver\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[scaimind.resolvers]\ncorpus = corpus_resolver:resolve\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    there = resolve("corpus://a", "corpus", origins={}, tokens={"corpus": "t"})
    assert there == Location("http://127.0.0.1:9/x", {"Authorization": "t"})
    for path, error in (
        ("corpus://a.jsonl", "its address is unknown or not allowed"),
        ("corpus://broken", "corpus:// cannot be resolved here"),
        ("other://a", "other:// is not set up here"),
    ):
        found = check(Source(path=path), Question(rules=Rules(), tenant_id="acme", sources=()))
        assert found.error == error


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyarrow", "pyarrow.parquet", "s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    rules = Rules(roots=(str(tmp_path), "s3://corpora", "gs://corpora"))
    question = Question(rules=rules, tenant_id="acme", sources=())

    def found(path: str) -> Finding:
        return check(Source(path=path), question)

    parquet = found(f"{tmp_path}/a.parquet")
    assert (parquet.reachable, parquet.parseable) == (True, False)
    assert parquet.error == "parquet needs the extra `parquet` where the coordinator runs"
    for scheme in ("s3", "gs"):
        error = found(f"{scheme}://corpora/a.jsonl").error
        assert error == f"{scheme}:// needs the extra `{scheme}` where the coordinator runs"
