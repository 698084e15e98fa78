"""What the agent told this process through its environment, read once and checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

MAX_CONFIG_BYTES = 16 * 1024 * 1024
CONFIG_NAMES = (
    "training_config",
    "data_config",
    "resource_config",
    "output_config",
    "scheduling_config",
)


class Environment(NamedTuple):
    """One rank's view of its attempt; ids are "" and the attempt 0 outside MindCoordinator."""

    job_id: str
    lineage_id: str
    attempt: int
    config: dict[str, dict[str, Any]]
    hyperparameters: dict[str, str]
    data_paths: tuple[Path, ...]
    mount_paths: tuple[Path, ...]
    checkpoint_dir: Path
    output_dir: Path
    resume_from: Path | None
    events_path: Path | None
    rank: int
    local_rank: int
    world_size: int


def read(environ: Mapping[str, str]) -> Environment:
    """Read `environ`; ValueError names the variable that makes no sense."""
    config = _config(environ.get("MIND_CONFIG", ""))
    return Environment(
        job_id=environ.get("MIND_JOB_ID", ""),
        lineage_id=environ.get("MIND_LINEAGE_ID", ""),
        attempt=_count(environ, "MIND_ATTEMPT", default=0),
        config=config,
        hyperparameters=_hyperparameters(config["training_config"]),
        data_paths=_numbered(environ, "MIND_DATA_{}_PATH"),
        mount_paths=_numbered(environ, "STORAGE_MOUNT_{}_PATH"),
        checkpoint_dir=Path(environ.get("MIND_CHECKPOINT_DIR") or "checkpoints").absolute(),
        output_dir=Path(environ.get("MIND_OUTPUT_DIR") or "output").absolute(),
        resume_from=_path(environ, "MIND_RESUME_FROM"),
        events_path=_path(environ, "MIND_EVENTS"),
        rank=_count(environ, "RANK", default=0),
        local_rank=_count(environ, "LOCAL_RANK", default=0),
        world_size=max(1, _count(environ, "WORLD_SIZE", default=1)),
    )


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    value = environ.get(name, "")
    return Path(value).absolute() if value else None


def _count(environ: Mapping[str, str], name: str, *, default: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"{name} must be a whole number that is not negative, got {text!r}")
    return int(text)


def _numbered(environ: Mapping[str, str], pattern: str) -> tuple[Path, ...]:
    """The paths of `pattern` with 0, 1, 2 ... up to the first number that is not set."""
    paths: list[Path] = []
    while (path := _path(environ, pattern.format(len(paths)))) is not None:
        paths.append(path)
    return tuple(paths)


def _config(file_name: str) -> dict[str, dict[str, Any]]:
    """The five configs of MIND_CONFIG by name; each of them is empty where it is absent."""
    document = _load_json(Path(file_name)) if file_name else {}
    if not isinstance(document, dict):
        raise ValueError(f"MIND_CONFIG must hold a JSON object, {file_name} holds another value")
    config: dict[str, dict[str, Any]] = {}
    for name in CONFIG_NAMES:
        section = document.get(name) or {}
        if not isinstance(section, dict):
            raise ValueError(f"{name} in MIND_CONFIG must be a JSON object")
        config[name] = section
    return config


def _load_json(path: Path) -> object:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ValueError(f"MIND_CONFIG cannot be read: {error}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ValueError(f"MIND_CONFIG is over its limit of {MAX_CONFIG_BYTES} bytes")
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"MIND_CONFIG is not JSON: {error}") from error
    return document


def _hyperparameters(training_config: Mapping[str, Any]) -> dict[str, str]:
    values = training_config.get("hyperparameters") or {}
    if not isinstance(values, dict):
        raise ValueError("training_config.hyperparameters in MIND_CONFIG must be a JSON object")
    return {key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}
