"""What holds for all tests: examples that hypothesis makes are the same in every run, and none is
judged by the time that it takes, which is that of a busy machine. Tests of real programs, sockets and
stores may be tried a second time (docs/adr/0012-tried-again.md)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")

REAL = ("tests/contract/", "tests/e2e/", "tests/integration/")
MOST_AGAIN = 3  # tests of a whole run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Only what runs beside the machine's other work is tried again; the core never is."""
    for item in items:
        if item.nodeid.startswith(REAL):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run in which many needed a second try has failed."""
    if len(_again(session.config)) > MOST_AGAIN:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names them, with what failed at first."""
    again = _again(terminalreporter.config)
    if not again:
        return
    terminalreporter.section(f"tried again: {len(again)}, at most {MOST_AGAIN}")
    for name, told in again.items():
        terminalreporter.line(f"{name}\n{told}")


def _again(config: pytest.Config) -> dict[str, str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    found = reporter.stats.get("rerun", ()) if reporter is not None else ()
    return {report.nodeid: report.longreprtext for report in found}
