"""The probes on the machine that the tests run on, as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
DETECT = "from node_agent.telemetry import detect_devices as d; print([x.type for x in d('auto')])"


def test_without_a_driver_auto_offers_the_cores(tmp_path: Path) -> None:
    # A library that is none hides the driver of a machine that has one.
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    done = subprocess.run(
        [sys.executable, "-c", DETECT],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    cores = len(os.sched_getaffinity(0))
    assert done.stdout.splitlines()[-1] == str(["CPU"] * cores)
