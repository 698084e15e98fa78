"""Installs programs of the system that the tests need and that are missing.

    python tools/need.py redis-server nft:nftables gcc:gcc+libc6-dev …

Each name is a program, after a colon its Debian packages where they are called otherwise. Nothing is
asked and nothing is said where all are there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

EXIT_MISSING = 3
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
INSTALL = ("apt-get", "install", "-y", "-q", "--no-install-recommends")


def main(names: list[str]) -> int:
    """Installs what is missing of the named programs; 3 where that cannot be done here."""
    parted = (name.partition(":") for name in names)
    packages = {program: (some or program).split("+") for program, _, some in parted}
    missing = _missing(packages)
    if not missing:
        return 0
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return _give_up(missing, "only root can install them here, and only by apt-get")
    print(f"installing {' '.join(missing)}", flush=True)
    said = ""
    wanted = sorted({package for program in missing for package in packages[program]})
    for command in (("apt-get", "update", "-q"), (*INSTALL, *wanted)):
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        said = f"{done.stdout[-1000:]}{done.stderr[-1000:]}"
    still = _missing(missing)
    return _give_up(still, said) if still else 0


def _missing(programs: Iterable[str]) -> list[str]:
    return [program for program in programs if shutil.which(program, path=PATH) is None]


def _give_up(missing: list[str], why: str) -> int:
    print(f"missing: {' '.join(missing)}. Install them and try again ({why})", file=sys.stderr)
    return EXIT_MISSING


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
