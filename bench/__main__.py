"""`python -m bench [name …] [--write]`: measures, prints one table, keeps it in docs/performance.md."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import Row, text_table, write_page

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BENCHES = {
    "core": "bench.core_bench",
    "scale": "bench.scale",
    "explain": "bench.explain_bench",
    "store": "bench.store_bench",
    "lists": "bench.lists_bench",
    "batch": "bench.batches",
    "grpc": "bench.submits",
    "rest": "bench.over_http",
    "dispatch": "bench.dispatch",
    "containers": "bench.containers",
    "agent": "bench.at_rest",
    "agents": "bench.fleet",
    "logs": "bench.log_lines",
    "lines": "bench.many_lines",
    "steady": "bench.steady_log",
    "readers": "bench.many_readers",
    "control": "bench.control",
    "recovery": "bench.recovery_bench",
    "failover": "bench.failover_bench",
}


def main() -> int:
    """Runs the named benches, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--write", action="store_true", help=f"keep the table in docs/{PAGE.name}")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"there is no bench {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    for name in options.names or BENCHES:
        began = time.perf_counter()
        print(f"{name} …", end=" ", flush=True, file=sys.stderr)
        measure: Callable[[], list[Row]] = importlib.import_module(BENCHES[name]).rows
        rows += measure()
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(text_table(rows))
    if options.write:
        write_page(PAGE, _machine(), rows=rows, whole=not options.names)
    return 0


def _machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"Measured with Python {platform.python_version()} on {os.cpu_count()} cores and "
        f"{memory_gib:.0f} GiB, {platform.system()} {platform.machine()}; clients and floors share the cores."
    )


if __name__ == "__main__":
    sys.exit(main())
