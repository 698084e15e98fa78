"""500 readers of one job's log over SSE: what 50 of them that freeze cost the others, and the programs.

The floor of each figure is the same cluster with the 450 healthy readers alone, just before.
`python -m bench.many_readers` prints the table by itself.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.report import Figure, Row, Target, quantile, text_table
from tests.support import jobs
from tests.support.cluster import MODULE, Cluster
from tests.support.frozen import frozen, memory

HEALTHY, FROZEN = 450, 50
LINES_PER_S = 10
SETTLE_S, ALONE_S = 5.0, 15.0
TOGETHER_S = 40.0  # longer than a frozen reader is kept
BURST_LINES = 6000  # of 1,000 bytes, so that those who never read are stuck at once
PRINTER = f"""
    import sys, time
    for number in range({BURST_LINES}):
        sys.stdout.write("burst ".ljust(999, "x") + "\\n")
    sys.stdout.flush()
    while True:
        print(f"at={{time.time():.6f}} ".ljust(200, "x"), flush=True)
        time.sleep(1 / {LINES_PER_S})
    """
AT = re.compile(rb"at=([0-9.]+)")
OPEN = re.compile(r"^scaimind_gateway_open_streams ([0-9.]+)$", re.MULTILINE)
WHAT = f"Log over SSE, {HEALTHY} readers and {FROZEN} frozen ones; without those"


@dataclass(slots=True)
class Watch:
    """What one span of time showed: delays of lines in seconds, the most memory of each program in bytes."""

    delays_s: list[float] = field(default_factory=list)
    bytes: dict[str, int] = field(default_factory=dict)
    let_go_s: float = TOGETHER_S

    def share(self, span_s: float) -> float:
        """Lines that came, of those that were printed."""
        return len(self.delays_s) / (HEALTHY * LINES_PER_S * span_s)


def rows() -> list[Row]:
    """Delays of lines, lines that came, memory, and when the frozen readers were let go."""
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder) / "data") as cluster:
        program = jobs.script(Path(folder), "printer.py", PRINTER)
        job_id = cluster.client.submit(jobs.body(program)).job_id
        _wait_for_the_burst(cluster, job_id)
        alone, together = asyncio.run(_measure(cluster, job_id))
        cluster.client.cancel(job_id)
    return [
        *_delay_rows(alone, together),
        Row(
            f"{WHAT}: lines that came, of those printed",
            Figure(100 * together.share(TOGETHER_S), "%"),
            Figure(100 * alone.share(ALONE_S), "%"),
            Target(0.95, 0.99),
        ),
        Row(
            f"{WHAT}: the last frozen one is let go after",
            Figure(together.let_go_s, "s"),
            None,
            Target(35, at_most=True, of_ratio=False, unit="s"),
        ),
        *(
            Row(
                f"{WHAT}: what a frozen one costs the {name}, at most",
                Figure((together.bytes[name] - alone.bytes[name]) / FROZEN / (1 << 20), "MiB"),
                None,
                Target(8, 2, at_most=True, of_ratio=False, unit="MiB"),
            )
            for name in ("coordinator", "gateway")
        ),
    ]


def _delay_rows(alone: Watch, together: Watch) -> list[Row]:
    shares = {"p50": 0.5, "p99": 0.99}
    bounds = {"p50": None, "p99": Target(1000, 250, at_most=True, of_ratio=False, unit="ms")}
    return [
        Row(
            f"{WHAT}: line → reader, {name}",
            Figure(1000 * quantile(together.delays_s, share), "ms"),
            Figure(1000 * quantile(alone.delays_s, share), "ms"),
            bounds[name],
        )
        for name, share in shares.items()
    ]


def _wait_for_the_burst(cluster: Cluster, job_id: str) -> None:
    params: dict[str, str | int] = {"tail": 1}
    with cluster.rest.stream("GET", f"/jobs/{job_id}/logs", params=params, timeout=60) as answer:
        assert answer.status_code == 200
        assert any("at=" in line for line in answer.iter_lines())


async def _measure(cluster: Cluster, job_id: str) -> tuple[Watch, Watch]:
    """Without and with frozen readers."""
    seen: list[float] = []
    readers = [asyncio.create_task(_read(cluster, job_id, seen)) for _ in range(HEALTHY)]
    async with httpx.AsyncClient(trust_env=False) as client:
        await asyncio.sleep(SETTLE_S)
        alone = await _watch(cluster, client, seen, span_s=ALONE_S)
        with ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, frozen(cluster, job_id, FROZEN))
            together = await _watch(cluster, client, seen, span_s=TOGETHER_S)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    return alone, together


async def _watch(
    cluster: Cluster, client: httpx.AsyncClient, seen: list[float], *, span_s: float
) -> Watch:
    """Looks on once a second."""
    watch = Watch()
    seen.clear()
    began = time.monotonic()
    while (passed := time.monotonic() - began) < span_s:
        await asyncio.sleep(min(1.0, span_s - passed))
        for name, size in (await asyncio.to_thread(memory, cluster)).items():
            watch.bytes[name] = max(size, watch.bytes.get(name, 0))
        if await _open_streams(cluster, client) <= HEALTHY:
            watch.let_go_s = min(watch.let_go_s, time.monotonic() - began)
    watch.delays_s = list(seen)
    return watch


async def _open_streams(cluster: Cluster, client: httpx.AsyncClient) -> float:
    shown = await client.get(f"http://{cluster.http}/metrics", timeout=30)
    found = OPEN.search(shown.text)
    assert found, shown.text
    return float(found[1])


async def _read(cluster: Cluster, job_id: str, seen: list[float]) -> None:
    """Follows the log and notes how late each line comes."""
    host, port = cluster.http.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET {MODULE}/jobs/{job_id}/logs?tail=0 HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer {cluster.key}\r\n\r\n".encode()
    )
    try:
        while part := await reader.read(65_536):
            now = time.time()
            seen += [now - float(at) for at in AT.findall(part)]
    finally:
        writer.close()


if __name__ == "__main__":
    print(text_table(rows()))
