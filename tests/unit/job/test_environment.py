"""What a rank learns from its environment, and what it says to nonsense."""

import json
from pathlib import Path
from typing import Any

import pytest

from scaimind.job.environment import CONFIG_NAMES, MAX_CONFIG_BYTES, read


def write_config(tmp_path: Path, document: object) -> dict[str, str]:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    return {"MIND_CONFIG": str(path)}


def test_without_any_variable_the_defaults_let_a_script_run_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    facts = read({})
    assert (facts.job_id, facts.lineage_id, facts.attempt) == ("", "", 0)
    assert (facts.rank, facts.local_rank, facts.world_size) == (0, 0, 1)
    assert facts.checkpoint_dir == tmp_path / "checkpoints"
    assert facts.output_dir == tmp_path / "output"
    assert facts.resume_from is None
    assert facts.events_path is None
    assert facts.data_paths == facts.mount_paths == ()
    assert facts.config == {name: {} for name in CONFIG_NAMES}


def test_every_variable_of_the_agent_is_read(environ: dict[str, str], tmp_path: Path) -> None:
    config = {"training_config": {"hyperparameters": {"steps": "7", "ratio": 0.5, "flag": True}}}
    environ |= write_config(tmp_path, config) | {
        "MIND_ATTEMPT": "3",
        "MIND_RESUME_FROM": "/checkpoints/step-00000100",
        "MIND_DATA_0_PATH": "/data/a",
        "MIND_DATA_1_PATH": "/data/b",
        "STORAGE_MOUNT_0_PATH": "/mnt/c",
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
    }
    facts = read(environ)
    assert (facts.job_id, facts.lineage_id, facts.attempt) == ("job_1", "job_0", 3)
    assert facts.resume_from == Path("/checkpoints/step-00000100")
    assert facts.data_paths == (Path("/data/a"), Path("/data/b"))
    assert facts.mount_paths == (Path("/mnt/c"),)
    assert (facts.rank, facts.local_rank, facts.world_size) == (5, 1, 8)
    assert facts.hyperparameters == {"steps": "7", "ratio": "0.5", "flag": "true"}


def test_more_than_nine_data_sources_keep_their_order() -> None:
    environ = {f"MIND_DATA_{number}_PATH": f"/data/{number}" for number in range(12)}
    assert read(environ).data_paths == tuple(Path(f"/data/{number}") for number in range(12))


def test_configs_that_were_not_submitted_are_empty(tmp_path: Path) -> None:
    facts = read(write_config(tmp_path, {"output_config": None, "data_config": {"seed": 1}}))
    assert facts.config["output_config"] == {}
    assert facts.config["data_config"] == {"seed": 1}


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MIND_ATTEMPT"])
@pytest.mark.parametrize("text", ["-1", "two", "1.5", "٣", "9" * 40])
def test_a_number_that_makes_no_sense_is_named(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        read({name: text})


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([1], "JSON object"),
        ({"data_config": "x"}, "data_config"),
        ({"training_config": {"hyperparameters": ["lr"]}}, "hyperparameters"),
    ],
)
def test_a_config_of_the_wrong_shape_is_refused(
    tmp_path: Path, document: Any, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        read(write_config(tmp_path, document))


def test_a_config_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MIND_CONFIG cannot be read"):
        read({"MIND_CONFIG": str(tmp_path / "missing.json")})


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\xfa", b"[" * 200_000])
def test_a_config_that_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="MIND_CONFIG is not JSON"):
        read({"MIND_CONFIG": str(path)})


def test_a_config_over_its_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(MAX_CONFIG_BYTES + 1)
    with pytest.raises(ValueError, match="limit"):
        read({"MIND_CONFIG": str(path)})
