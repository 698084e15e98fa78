"""NVIDIA's container toolkit: where it is so old that a crafted image can leave its container, none is started.

Up to 1.16.1 that is CVE-2024-0132, up to 1.17.7 CVE-2025-23266.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import structlog

from node_agent.runtime.rules import Rules

PROGRAM = "nvidia-ctk"
LEAST = (1, 17, 8)
TIMEOUT_S = 10.0

_VERSION = re.compile(r"version v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_log = structlog.get_logger()


def guarded(rules: Rules) -> Rules:
    """The rules, without containers where the toolkit is too old. Blocks briefly."""
    if rules.containers is None:
        return rules
    version = _version()
    if version is None or version >= LEAST:
        return rules
    found, least = (".".join(map(str, one)) for one in (version, LEAST))
    hint = f"no containers are started here until {PROGRAM} is {least} or newer"
    _log.error("container_toolkit_too_old", version=found, hint=hint)
    return replace(rules, containers=None)


def _version() -> tuple[int, ...] | None:
    """What is installed; None for nothing that says so."""
    try:
        done = subprocess.run(
            [PROGRAM, "--version"], capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = _VERSION.search(done.stdout.decode("utf-8", "replace"))
    return tuple(int(part) for part in said.groups()) if said else None
