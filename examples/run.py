"""What `make run` does: a cluster on this machine, and a language model that learns on it.

Starts `scaimind up` (or uses the one that runs in the data directory), submits the example job
over REST, shows its progress, loss and log live, and says at the end where everything is. Exit
code 0 if the job completed and its loss fell clearly.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import httpx

from examples.display import Screen, View, log_line, screen
from examples.rest import Event, Refused, Rest
from scaimind.cli import jobfile
from scaimind.cli.exits import INTERRUPTED, Fault
from scaimind.cli.text import clean, number, size
from scaimind.cli.up import claim
from scaimind.client.connection import KEY_FILE, read_key_file

ROOT = Path(__file__).absolute().parent.parent
JOB = ROOT / "examples" / "tiny_lm" / "job.json"
HTTP, GRPC = "127.0.0.1:8080", "127.0.0.1:50051"
ANY_PORT = "127.0.0.1:0"
READY_S = 90.0
STOP_S = 60.0
LOOK_S = 0.5
STALL_S = 300.0
CANCEL_LOOKS = 40
FINAL = frozenset(("COMPLETED", "FAILED", "CANCELLED"))
CLEARLY = 0.8
SAMPLE_CHARACTERS = 600


class Stopped(Exception):
    """The run ends without success, for this reason."""


class Cluster(NamedTuple):
    """A cluster that is ready."""

    url: str
    grpc: str
    data_dir: Path


async def main() -> int:
    """Runs the example; returns the exit code."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    data_dir = Path(os.environ.get("MIND_DATA_DIR") or ROOT / ".mind").expanduser().absolute()
    try:
        async with cluster(data_dir) as here:
            key = read_key_file(data_dir / KEY_FILE)
            if key is None:
                raise Stopped(f"{data_dir / KEY_FILE} holds no key")
            async with Rest(here.url, key) as rest:
                return await train(rest, here)
    except (Stopped, Refused, Fault, httpx.HTTPError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


@contextlib.asynccontextmanager
async def cluster(data_dir: Path) -> AsyncIterator[Cluster]:
    """The cluster of the data directory: the one that runs there, or one of our own."""
    if claim.is_claimed(data_dir):
        print(f"using the cluster that runs in {data_dir}")
        yield await _running(data_dir)
        return
    print(f"starting a cluster in {data_dir}")
    words = ["--http", _free(HTTP, "HTTP"), "--grpc", _free(GRPC, "gRPC"), "--devices", "cpu"]
    # In a session of its own, so that Ctrl-C reaches it only after the job was cancelled.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "scaimind.cli", "up", "--data-dir", str(data_dir)),
        *words,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield await _ready(process, data_dir)
    finally:
        await _stop(process, data_dir)


def _free(address: str, name: str) -> str:
    """The usual address, or one with any free port where that is taken."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            print(f"{address} is in use; {name} takes a free port")
            return ANY_PORT
    return address


async def _ready(process: asyncio.subprocess.Process, data_dir: Path) -> Cluster:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_S):
            line = (await process.stdout.readline()).decode("utf-8", "replace").strip()
    except TimeoutError:
        raise Stopped(f"the cluster was not ready within {READY_S:.0f} s") from None
    if not line.startswith("ready:"):
        raise Stopped("the cluster did not start")
    print(line)
    return _noted(data_dir)


async def _running(data_dir: Path) -> Cluster:
    deadline = time.monotonic() + READY_S
    while not claim.read_note(data_dir).get("ready"):
        if time.monotonic() > deadline:
            raise Stopped(f"the cluster in {data_dir} is not ready")
        await asyncio.sleep(LOOK_S)
    return _noted(data_dir)


def _noted(data_dir: Path) -> Cluster:
    note = claim.read_note(data_dir)
    return Cluster(str(note["url"]), str(note["grpc"]), data_dir)


async def _stop(process: asyncio.subprocess.Process, data_dir: Path) -> None:
    """Stops our own cluster and waits for its end."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, end)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await process.wait()
                break
    print(f"the cluster is stopped; `scaimind up --data-dir {data_dir}` starts it again")


async def train(rest: Rest, here: Cluster) -> int:
    """Submits the job, shows it until its end, and says what came of it."""
    answer = await rest.post("/jobs", jobfile.read(str(JOB), []))
    job_id = answer["job_id"]
    print(f"submitted {job_id} {clean(answer['message'])}".rstrip())
    try:
        job = await watch(rest, job_id)
    except asyncio.CancelledError:
        await cancel(rest, job_id)
        raise
    points = (await rest.get(f"/jobs/{job_id}/metrics"))["points"]
    return report(job, losses(points), here)


async def cancel(rest: Rest, job_id: str) -> None:
    """Cancels the job, and gives its process the time to save what it has."""
    await rest.post(f"/jobs/{job_id}/cancel", {"reason": "interrupted"})
    print(f"\ncancelled {job_id}")
    for _ in range(CANCEL_LOOKS):
        attempt = (await rest.get(f"/jobs/{job_id}"))["attempt"]
        if attempt is None or attempt["ended_at"]:
            return
        await asyncio.sleep(LOOK_S)


async def watch(rest: Rest, job_id: str) -> dict[str, Any]:
    """Shows the job until it is final and its streams have ended; returns the last record."""
    view = View()
    with screen() as shown, _first_error():
        async with asyncio.TaskGroup() as tasks:
            log = rest.events(f"/jobs/{job_id}/logs", follow="true", tail=-1)
            metrics = rest.events(f"/jobs/{job_id}/metrics/stream", interval=1)
            tasks.create_task(_take(log, view, shown))
            tasks.create_task(_take(metrics, view, shown))
            await _look(rest, job_id, view, shown=shown)
    return view.job


@contextlib.contextmanager
def _first_error() -> Iterator[None]:
    """Raises the first of a group of errors alone."""
    try:
        yield
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _take(events: AsyncIterator[Event], view: View, shown: Screen) -> None:
    """Takes the events of one stream into the view."""
    async for event in events:
        if event.name == "log":
            view.lines.append(log_line(event.data))
        elif event.name == "metrics":
            view.step = event.data["step"]
            view.values |= event.data["values"]
            view.losses.extend(losses([event.data]))
        shown.show(view)


async def _look(rest: Rest, job_id: str, view: View, *, shown: Screen) -> None:
    """Reads the job's record now and then, until it is final."""
    changed_at, last = time.monotonic(), (None, 0)
    while view.job.get("status") not in FINAL:
        if view.job:
            await asyncio.sleep(LOOK_S)
        view.job = await rest.get(f"/jobs/{job_id}")
        now = (view.job["version"], view.step)
        if now != last:
            changed_at, last = time.monotonic(), now
        if time.monotonic() - changed_at > STALL_S:
            reason = view.job.get("status_reason") or {}
            raise Stopped(f"{job_id} stays {view.job['status']}: {reason.get('message', '')}")
        shown.show(view)


def losses(points: Iterable[dict[str, Any]]) -> list[float]:
    """The losses among the values of points, in order."""
    found = (point["values"].get("loss") for point in points)
    return [loss for loss in found if isinstance(loss, int | float) and math.isfinite(loss)]


def report(job: dict[str, Any], course: list[float], here: Cluster) -> int:
    """Says what came of the job; returns the exit code."""
    print(f"\n{job['job_id']} {job['status']}")
    error = job.get("error")
    if job["status"] != "COMPLETED":
        print(f"error: {clean(error['message']) if error else 'the job did not complete'}")
    first, last = _ends(course)
    print(f"loss         {number(first)} at the start, {number(last)} at the end")
    for checkpoint in job["checkpoints"]:
        print(f"checkpoint   step {checkpoint['step']}: {path_of(checkpoint['uri'])}")
    model = job.get("output_model_uri") or ""
    if model:
        _describe(Path(path_of(model)))
    print(f"REST         {here.url}/jobs/{job['job_id']}   (key in {here.data_dir / KEY_FILE})")
    print(f"gRPC         {here.grpc}   (scaimind --server {here.grpc} job {job['job_id']})")
    fell = last < CLEARLY * first
    if job["status"] == "COMPLETED" and not fell:
        print("error: the loss did not fall clearly")
    return 0 if job["status"] == "COMPLETED" and fell else 1


def _ends(course: list[float]) -> tuple[float, float]:
    """The loss at the start, and the mean of the last few; NaN where there is none."""
    tail = course[-10:]
    return (course[0], sum(tail) / len(tail)) if tail else (math.nan, math.nan)


def _describe(model: Path) -> None:
    """Where the model is, and what it writes."""
    folder = model if model.is_dir() else model.parent
    files = sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
    print(f"model        {model}")
    for file in files:
        print(f"             {file.name}  {size(file.stat().st_size)}")
    sample = folder / "sample.txt"
    if sample.is_file():
        text = sample.read_text(encoding="utf-8", errors="replace")[:SAMPLE_CHARACTERS]
        print("it writes:")
        print("\n".join(f"    {clean(line)}" for line in text.splitlines()))


def path_of(uri: str) -> str:
    """The path of a file URI; any other URI as it is."""
    return unquote(urlsplit(uri).path) if uri.startswith("file:") else uri


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(INTERRUPTED)
