"""What `make run` shows and how it judges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from examples.display import BARS, Lines, View, sparkline
from examples.run import Cluster, losses, path_of, report

HERE = Cluster("http://127.0.0.1:1/v1/modules/scaimind", "127.0.0.1:2", Path("/data"))


def a_job(**changes: Any) -> dict[str, Any]:
    job: dict[str, Any] = {
        "job_id": "job_1",
        "status": "COMPLETED",
        "checkpoints": [],
        "error": None,
    }
    return {**job, "output_model_uri": "", **changes}


def points(*values: Any) -> list[dict[str, Any]]:
    return [{"values": {"loss": value}} for value in values]


def test_a_loss_that_fell_clearly_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(a_job(), [5.5, 3.0, *[1.6] * 10], HERE) == 0
    assert "5.5 at the start, 1.6 at the end" in capsys.readouterr().out


@pytest.mark.parametrize("course", [[], [5.5], [5.5, 5.4], [1.0, 2.0]])
def test_a_loss_that_did_not_fall_is_none(
    course: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(a_job(), course, HERE) == 1
    assert "the loss did not fall clearly" in capsys.readouterr().out


def test_a_job_that_failed_is_told_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    job = a_job(status="FAILED", error={"message": "exit code 3"})
    assert report(job, [5.5, 1.0], HERE) == 1
    assert "error: exit code 3" in capsys.readouterr().out


def test_the_model_its_files_and_its_sample_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.npz").write_bytes(b"x" * 2000)
    (tmp_path / "sample.txt").write_text("def f():\n    pass\x1b[2J\n")
    checkpoint = {"step": 7, "uri": "file:///somewhere/step%207"}
    job = a_job(output_model_uri=tmp_path.as_uri(), checkpoints=[checkpoint])
    report(job, [5.5, 1.0], HERE)
    out = capsys.readouterr().out
    assert f"model        {tmp_path}\n" in out
    assert "model.npz  2.0 kB" in out
    assert "    pass\\x1b[2J" in out
    assert "step 7: /somewhere/step 7" in out


def test_only_losses_that_are_numbers_count() -> None:
    course = [*points(5.5, "NaN", math.inf, 1), {"values": {"accuracy": 1.0}}]
    assert losses(course) == [5.5, 1]


def test_uris_of_files_are_shown_as_paths() -> None:
    assert path_of("file:///a%20b/c") == "/a b/c"
    assert path_of("/plain/path") == "/plain/path"
    assert path_of("s3://bucket/key") == "s3://bucket/key"


def test_a_sparkline_is_high_where_the_loss_is_high() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([3.0], 10) == BARS[0]
    assert sparkline([4.0, 3.0, 1.0], 10) == "█▅▁"
    assert len(sparkline([float(n) for n in range(1000)], 40)) == 40


def test_lines_are_for_new_statuses_and_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("examples.display.time.monotonic", lambda: now_s)
    view, lines = View(), Lines()
    view.job = {"status": "TRAINING", "progress": 10.0, "eta_seconds": 90}
    view.step, view.values = 7, {"loss": 2.5}
    view.lines.append("hello")
    for _ in range(5):
        lines.show(view)
    now_s += 60
    view.step = 8
    lines.show(view)
    assert capsys.readouterr().out.splitlines() == [
        "TRAINING       10.0 %   step 7   loss 2.5   1m 30s to go",
        "TRAINING       10.0 %   step 8   loss 2.5   1m 30s to go",
        "  | hello",
    ]
