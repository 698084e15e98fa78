"""What a script says through its attempt, and how it may be used."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import scaimind
from scaimind.job import Attempt, attempt
from scaimind.job.environment import read
from scaimind.job.steps import Steps
from tests.unit.job.conftest import Events


def test_metrics_carry_step_values_and_epoch(run: Attempt, events: Events) -> None:
    run.log({"loss": 0.5, "grad_norm": math.inf}, step=3, epoch=0.25)
    run.log({"loss": math.nan}, step=4)
    assert events() == [
        {
            "event": "metrics",
            "step": 3,
            "values": {"loss": 0.5, "grad_norm": "Infinity"},
            "epoch": 0.25,
        },
        {"event": "metrics", "step": 4, "values": {"loss": "NaN"}},
    ]


def test_a_metric_that_is_no_number_is_refused_and_nothing_is_written(
    run: Attempt, events: Events
) -> None:
    values: Any = {"loss": 0.5, "note": "good"}
    with pytest.raises(TypeError, match="'note' must be a number, got str"):
        run.log(values, step=1)
    assert events() == []


def test_progress_is_clamped_and_finite(run: Attempt, events: Events) -> None:
    run.progress(0.4, eta_seconds=12)
    run.progress(1.0000001)
    run.progress(0.5, eta_seconds=-0.1)
    assert events() == [
        {"event": "progress", "fraction": 0.4, "eta_seconds": 12.0},
        {"event": "progress", "fraction": 1.0},
        {"event": "progress", "fraction": 0.5, "eta_seconds": 0.0},
    ]
    with pytest.raises(ValueError, match="fraction must be finite"):
        run.progress(math.nan)


def test_a_message_has_a_level(run: Attempt, events: Events) -> None:
    run.message("careful", level="WARNING")
    assert events() == [{"event": "log", "level": "WARNING", "message": "careful"}]
    with pytest.raises(ValueError, match="level must be one of DEBUG, INFO"):
        run.message("careful", level="LOUD")


def test_done_is_said_once(run: Attempt, events: Events) -> None:
    with run:
        run.done()
    run.done()
    assert events() == [{"event": "done"}]


def test_a_clean_end_of_the_block_says_done(run: Attempt, events: Events) -> None:
    with run as inner:
        assert inner is run
    assert events() == [{"event": "done"}]


def test_an_exception_in_the_block_does_not_say_done(run: Attempt, events: Events) -> None:
    with pytest.raises(RuntimeError), run:
        raise RuntimeError
    assert events() == []


def test_only_rank_zero_is_main(environ: dict[str, str]) -> None:
    assert Attempt(read(environ)).is_main
    assert not Attempt(read(environ | {"RANK": "1", "WORLD_SIZE": "2"})).is_main


def test_the_output_folder_exists(run: Attempt, tmp_path: Path) -> None:
    assert run.output_dir == tmp_path / "output"
    assert run.output_dir.is_dir()


def test_tracking_reports_the_first_the_last_and_one_a_second() -> None:
    now_s = 100.0
    reports: list[tuple[float, float | None]] = []
    steps = Steps(lambda *report: reports.append(report), 10, start=2, clock=lambda: now_s)
    assert steps.eta_seconds is None
    seen = []
    for step in steps:
        seen.append(step)
        now_s += 0.5
    assert seen == [3, 4, 5, 6, 7, 8, 9, 10]
    assert reports == [(0.3, 3.5), (0.5, 2.5), (0.7, 1.5), (0.9, 0.5), (1.0, 0.0)]


def test_tracking_from_the_last_step_has_nothing_to_do(run: Attempt) -> None:
    assert list(run.track(5, start=5)) == []


def test_tracking_writes_progress(run: Attempt, events: Events) -> None:
    for _ in run.track(1):
        pass
    assert events() == [{"event": "progress", "fraction": 1.0, "eta_seconds": 0.0}]


def test_init_gives_the_same_attempt_to_all(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_current", None)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    first = scaimind.init()
    assert first.job_id == "job_1"
    assert scaimind.init() is first


def test_a_script_runs_unchanged_outside(tmp_path: Path) -> None:
    script = (
        "import scaimind\n"
        "with scaimind.init() as run:\n"
        "    for step in run.track(2):\n"
        "        run.log({'loss': 1.0}, step=step)\n"
        "        with run.checkpoint(step) as folder:\n"
        "            (folder / 'state').write_text(str(step))\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, env=_bare_environ())
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000001", "step-00000002"]
    assert (tmp_path / "output").is_dir()


def test_importing_is_light(tmp_path: Path) -> None:
    script = (
        "import sys, scaimind\n"
        "before = set(sys.modules)\n"
        "scaimind.init()\n"
        "heavy = {'grpc', 'google', 'numpy', 'asyncio', 'transformers', 'inspect', 'shutil'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'scaimind.job' not in before\n"
        "assert 'init' in dir(scaimind)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, env=_bare_environ())


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        scaimind.nothing  # noqa: B018


def _bare_environ() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(scaimind.__file__).parents[1])}
