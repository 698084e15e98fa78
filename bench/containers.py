"""From a submit to the first instruction in a container, against the same container started by hand."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import docker
from docker.types import Mount

from bench.dispatch import Moments, moments
from bench.report import Figure, Row, Target, quantile
from scaimind import Client
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.engine import IMAGE, USER, Engine, programs

ROUNDS = 40
WARM_UP = 3
WAIT_S = 30.0
PROGRAM = '#!/usr/bin/bash\necho "$EPOCHREALTIME" > "$1"\n'


def rows() -> list[Row]:
    """One job at a time on an idle cluster, by turns with one container by hand."""
    with tempfile.TemporaryDirectory() as made, Engine() as engine:
        folder = Path(made)
        folder.chmod(0o755)
        program, path = jobs.script(folder, "begin.sh", PROGRAM), folder / "moments"
        shown = [*programs(), program, path]
        with moments(path) as pipe:
            path.chmod(0o666)
            settings = engine.settings(shown)
            with Cluster(folder / "cluster", settings=settings) as cluster, engine.client() as hand:
                return [
                    _row(cluster.client, hand, pipe=pipe, program=program, path=path, shown=shown)
                ]


def _row(
    client: Client,
    hand: docker.APIClient,
    *,
    pipe: Moments,
    program: Path,
    path: Path,
    shown: list[Path],
) -> Row:
    body = jobs.body(program, args=str(path), resources={"image": IMAGE})
    body["data_config"]["sources"] = [{"path": str(program)}]
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(WARM_UP + ROUNDS):
        ours.append(_by_agent(client, body, pipe))
        bare.append(_by_hand(hand, [str(program), str(path)], pipe, shown=shown))
    return Row(
        "Submit → first instruction in a container, p50; create and start by hand",
        Figure(quantile(ours[WARM_UP:], 0.5) * 1000, "ms"),
        Figure(quantile(bare[WARM_UP:], 0.5) * 1000, "ms"),
        Target(1.3, None, at_most=True),
    )


def _by_agent(client: Client, body: dict[str, object], pipe: Moments) -> float:
    began = time.time()
    job_id = client.submit(body).job_id
    took = pipe.next() - began
    client.wait(job_id, timeout_s=WAIT_S)
    return took


def _by_hand(
    engine: docker.APIClient, argv: list[str], pipe: Moments, *, shown: list[Path]
) -> float:
    """The same image, user, mounts and restrictions, through the same API."""
    began = time.time()
    limits = engine.create_host_config(
        mounts=[Mount(str(one), str(one), type="bind", read_only=True) for one in shown],
        network_mode="host",
        init=True,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        pids_limit=32_768,
        tmpfs={"/tmp": "rw,nosuid,nodev,mode=1777"},
    )
    made = engine.create_container(IMAGE, argv, user=USER, host_config=limits)
    engine.start(made["Id"])
    took = pipe.next() - began
    engine.wait(made["Id"])
    engine.remove_container(made["Id"], force=True)
    return took
