"""A cluster whose node runs containers, on an engine of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import jobs
from tests.support.cluster import ROOT, Cluster
from tests.support.engine import IMAGE, Engine, programs
from tests.support.registry import Registry


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """A registry of images for all tests; each test has tags of its own."""
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="session")
def engine(registry: Registry) -> Iterator[Engine]:
    """A container engine for all tests."""
    with Engine(registry.place) as engine:
        yield engine


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every container sees."""
    folder = tmp_path_factory.mktemp("shown")
    folder.chmod(0o755)
    (folder / "data").write_text("of the node\n")
    return folder


@pytest.fixture(scope="session")
def cluster(
    engine: Engine, shown: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """One node; shared by all tests."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder / "data", settings=engine.settings((*programs(), ROOT, shown))) as cluster:
        yield cluster


def body(
    shown: Path,
    program: Path | str,
    *,
    image: str = IMAGE,
    environment: Mapping[str, str] | None = None,
    resources: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A submit body of a job in a container."""
    given = jobs.body(program, resources={"image": image, **(resources or {})}, **more)
    given["data_config"] = {"sources": [{"path": str(shown / "data")}]}
    given["training_config"]["environment"] = dict(environment or {})
    return given
