"""A real browser without a window: Chromium, which shows one page until it is closed.

Nothing drives it: the page itself tells the test's server what it sees.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = "chromium"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--password-store=basic",
)


@contextmanager
def showing(url: str, folder: Path) -> Iterator[None]:
    """The browser with one page; what it keeps and says lies in `folder`."""
    program = shutil.which(PROGRAM)
    assert program is not None, f"{PROGRAM} is missing; `make test` installs it"
    words = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", url]
    with (folder / "browser.log").open("wb") as said:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
